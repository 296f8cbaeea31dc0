/* SPDX-License-Identifier: GPL-2.0-only */
/* What the KSM core and the kernel's rbtree.c need of <linux/export.h>, in userspace. */
#ifndef _SHIM_EXPORT_H
#define _SHIM_EXPORT_H

#define EXPORT_SYMBOL(symbol)
#define EXPORT_SYMBOL_GPL(symbol)

#endif /* _SHIM_EXPORT_H */
