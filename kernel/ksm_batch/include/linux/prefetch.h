/* SPDX-License-Identifier: GPL-2.0-only */
/* What the KSM core and the kernel's rbtree.c need of <linux/prefetch.h>, in userspace. */
#ifndef _SHIM_PREFETCH_H
#define _SHIM_PREFETCH_H

#define prefetch(address) __builtin_prefetch(address)

#endif /* _SHIM_PREFETCH_H */
