/* SPDX-License-Identifier: GPL-2.0-only */
/* What the KSM core and the kernel's rbtree.c need of <linux/kernel.h>, in userspace. */
#ifndef _SHIM_KERNEL_H
#define _SHIM_KERNEL_H

#include <linux/compiler.h>

#define container_of(member, type, name) \
	((type *)((char *)(member) - offsetof(type, name)))

#endif /* _SHIM_KERNEL_H */
