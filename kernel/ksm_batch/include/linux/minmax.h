/* SPDX-License-Identifier: GPL-2.0-only */
/* What the KSM core and the kernel's rbtree.c need of <linux/minmax.h>, in userspace. */
#ifndef _SHIM_MINMAX_H
#define _SHIM_MINMAX_H

#define max(a, b) ((a) > (b) ? (a) : (b))
#define clamp(value, low, high) \
	((value) < (low) ? (low) : (value) > (high) ? (high) : (value))

#endif /* _SHIM_MINMAX_H */
