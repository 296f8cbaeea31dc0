/* SPDX-License-Identifier: GPL-2.0-only */
/* What the KSM core and the kernel's rbtree.c need of <linux/slab.h>, in userspace. */
#ifndef _SHIM_SLAB_H
#define _SHIM_SLAB_H

#include <stdlib.h>

#define GFP_KERNEL 0
#define kzalloc(size, flags) calloc(1, size)
#define kvcalloc(nr, size, flags) calloc(nr, size)
#define kfree(pointer) free(pointer)
#define kvfree(pointer) free(pointer)

#endif /* _SHIM_SLAB_H */
