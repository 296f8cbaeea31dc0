/* SPDX-License-Identifier: GPL-2.0-only */
/* What the KSM core and the kernel's rbtree.c need of <linux/log2.h>, in userspace. */
#ifndef _SHIM_LOG2_H
#define _SHIM_LOG2_H

#define ilog2(n) (31 - __builtin_clz(n))
#define roundup_pow_of_two(n) ((n) <= 1 ? 1U : 1U << (32 - __builtin_clz((n) - 1)))

#endif /* _SHIM_LOG2_H */
