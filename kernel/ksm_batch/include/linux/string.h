/* SPDX-License-Identifier: GPL-2.0-only */
/* What the KSM core and the kernel's rbtree.c need of <linux/string.h>, in userspace. */
#ifndef _SHIM_STRING_H
#define _SHIM_STRING_H

#include <string.h>

#endif /* _SHIM_STRING_H */
