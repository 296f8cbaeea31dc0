/* SPDX-License-Identifier: GPL-2.0-only */
/* What the KSM core and the kernel's rbtree.c need of <linux/bug.h>, in userspace. */
#ifndef _SHIM_BUG_H
#define _SHIM_BUG_H

/* A warning is a defect of the core or of the test: warned() ends the program. */
_Bool warned(const char *condition, const char *file, int line);

#define WARN_ON_ONCE(condition) \
	((condition) ? warned(#condition, __FILE__, __LINE__) : 0)

#endif /* _SHIM_BUG_H */
