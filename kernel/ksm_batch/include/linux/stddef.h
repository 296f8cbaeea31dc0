/* SPDX-License-Identifier: GPL-2.0-only */
/* What the KSM core and the kernel's rbtree.c need of <linux/stddef.h>, in userspace. */
#ifndef _SHIM_STDDEF_H
#define _SHIM_STDDEF_H

#include <stddef.h>

#endif /* _SHIM_STDDEF_H */
