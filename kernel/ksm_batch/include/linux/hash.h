/* SPDX-License-Identifier: GPL-2.0-only */
/* What the KSM core and the kernel's rbtree.c need of <linux/hash.h>, in userspace. */
#ifndef _SHIM_HASH_H
#define _SHIM_HASH_H

#include <linux/types.h>

static inline u32 hash_ptr(const void *pointer, unsigned int bits)
{
	return (u64)(uintptr_t)pointer * 0x61c8864680b583ebULL >> (64 - bits);
}

#endif /* _SHIM_HASH_H */
