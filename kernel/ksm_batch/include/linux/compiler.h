/* SPDX-License-Identifier: GPL-2.0-only */
/* What the KSM core and the kernel's rbtree.c need of <linux/compiler.h>, in userspace. */
#ifndef _SHIM_COMPILER_H
#define _SHIM_COMPILER_H

#include <linux/types.h>

#ifndef __always_inline
#define __always_inline inline __attribute__((__always_inline__))
#endif
#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)
#define WRITE_ONCE(to, value) (*(volatile __typeof__(to) *)&(to) = (value))
#define READ_ONCE(from) (*(const volatile __typeof__(from) *)&(from))

#endif /* _SHIM_COMPILER_H */
