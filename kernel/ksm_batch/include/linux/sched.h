/* SPDX-License-Identifier: GPL-2.0-only */
/* What the KSM core and the kernel's rbtree.c need of <linux/sched.h>, in userspace. */
#ifndef _SHIM_SCHED_H
#define _SHIM_SCHED_H

#define cond_resched() do { } while (0)

#endif /* _SHIM_SCHED_H */
