/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_KSM_OFFLOAD_H
#define _LINUX_KSM_OFFLOAD_H
/*
 * Devices that compare and checksum pages for ksmd.
 *
 * A driver registers a backend. ksmd hands it one job at a time, an array of
 * requests of one kind, sleeps, and collects the answers. Whatever a device
 * does not answer, or answers with an error, ksmd computes itself; and no
 * answer of a device is ever enough to merge two pages: the last comparison,
 * under write protection, is the processor's.
 */
#include <linux/list.h>
#include <linux/types.h>

struct page;

enum ksm_offload_op {
	KSM_OFFLOAD_COMPARE,
	KSM_OFFLOAD_CHECKSUM,
};

/**
 * struct ksm_offload_req - one page pair to compare, or one page to checksum
 * @a: bus address of the (first) page
 * @b: bus address of the second page; comparisons only
 * @status: set by the backend: 0, or a negative error if @result is void
 * @result: offset of the first byte that differs, PAGE_SIZE if none does;
 *	    or the CRC32C of the page (RFC 3720: initial value and final
 *	    exclusive or of all ones)
 */
struct ksm_offload_req {
	dma_addr_t a;
	dma_addr_t b;
	int status;
	u32 result;
};

/**
 * struct ksm_offload_job - requests of one kind that are submitted together
 * @op: what to do
 * @nr: how many requests, at least one
 * @reqs: the requests
 */
struct ksm_offload_job {
	enum ksm_offload_op op;
	unsigned int nr;
	struct ksm_offload_req *reqs;
};

/**
 * struct ksm_offload_ops - what a backend can do
 * @map: make pages readable for the device and write their bus addresses.
 *	 Returns a cookie for @unmap or an ERR_PTR.
 * @unmap: undo @map. If the backend holds an abandoned job it must keep the
 *	 mapping, and references to the pages, until the device has let go.
 * @submit: start a job; -EBUSY if the device takes none now. @job stays valid
 *	 until @finish or @abandon.
 * @done: whether the submitted job has completed. Cheap, never sleeps.
 * @finish: the job is done: fill in status and result of every request.
 * @abandon: the job did not complete in time: it will not be looked at again.
 *	 Memory that the device may still write belongs to the backend.
 *
 * All are called from one thread at a time and may sleep, but for @done.
 */
struct ksm_offload_ops {
	void *(*map)(void *priv, struct page **pages, dma_addr_t *addresses,
		     unsigned int nr);
	void (*unmap)(void *priv, void *cookie);
	int (*submit)(void *priv, struct ksm_offload_job *job);
	bool (*done)(void *priv);
	void (*finish)(void *priv, struct ksm_offload_job *job);
	void (*abandon)(void *priv);
};

/**
 * struct ksm_offload_backend - a device, or a part of one, that works for ksmd
 * @name: what /sys/kernel/mm/ksm/offload_backend shows
 * @ops: its operations
 * @priv: passed to every operation
 * @max_requests: the longest job it takes
 * @checksums: whether it does KSM_OFFLOAD_CHECKSUM
 */
struct ksm_offload_backend {
	const char *name;
	const struct ksm_offload_ops *ops;
	void *priv;
	unsigned int max_requests;
	bool checksums;
	/* private: */
	struct list_head list;
};

/*
 * A backend may be registered and unregistered at any time. Unregistering waits
 * for the batch that is on its way; when it returns nothing of ksmd's is mapped
 * by the backend, but for what a device never gave back.
 */
int ksm_offload_register(struct ksm_offload_backend *backend);
void ksm_offload_unregister(struct ksm_offload_backend *backend);

#endif /* _LINUX_KSM_OFFLOAD_H */
