// SPDX-License-Identifier: GPL-2.0-only
/*
 * A backend of the KSM offload that lies, fails, dawdles and hangs on request.
 *
 * It answers on the processor, and spoils its answers at the rates that its
 * module parameters give. What ksmd merges must be right whatever it says.
 */
#include <linux/crc32c.h>
#include <linux/err.h>
#include <linux/highmem.h>
#include <linux/io.h>
#include <linux/ksm_offload.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/prandom.h>

static unsigned int lie;
module_param(lie, uint, 0644);
MODULE_PARM_DESC(lie, "wrong answers, per thousand requests");

static unsigned int fail;
module_param(fail, uint, 0644);
MODULE_PARM_DESC(fail, "failed requests, per thousand");

static unsigned int refuse;
module_param(refuse, uint, 0644);
MODULE_PARM_DESC(refuse, "jobs that are not accepted, per thousand");

static unsigned int hang;
module_param(hang, uint, 0644);
MODULE_PARM_DESC(hang, "jobs that never complete, per thousand");

static unsigned int unmappable;
module_param(unmappable, uint, 0644);
MODULE_PARM_DESC(unmappable, "mappings that fail, per thousand");

static unsigned int delay_us;
module_param(delay_us, uint, 0644);
MODULE_PARM_DESC(delay_us, "how long a job takes");

static unsigned long long seed = 1;
module_param(seed, ullong, 0644);
MODULE_PARM_DESC(seed, "of the random numbers, read when the backend is enabled");

static struct rnd_state random;
static unsigned int mapped;	/* mappings that were not undone */
static u64 due;
static bool hung;

static bool happens(unsigned int per_thousand)
{
	return per_thousand && prandom_u32_state(&random) % 1000 < per_thousand;
}

static void *debug_map(void *priv, struct page **pages, dma_addr_t *addresses,
		       unsigned int nr)
{
	unsigned int i;

	if (happens(READ_ONCE(unmappable)))
		return ERR_PTR(-ENOMEM);
	for (i = 0; i < nr; i++)
		addresses[i] = page_to_phys(pages[i]);
	mapped++;
	return &mapped;
}

static void debug_unmap(void *priv, void *cookie)
{
	WARN_ON_ONCE(cookie != &mapped || !mapped);
	mapped--;
}

static int debug_submit(void *priv, struct ksm_offload_job *job)
{
	/* a job in hand, or pages that are not mapped, are ksmd's mistake */
	WARN_ON_ONCE(!job->nr || !mapped);
	if (happens(READ_ONCE(refuse)))
		return -EBUSY;
	hung = happens(READ_ONCE(hang));
	due = ktime_get_ns() + (u64)READ_ONCE(delay_us) * NSEC_PER_USEC;
	return 0;
}

static bool debug_done(void *priv)
{
	return !hung && ktime_get_ns() >= due;
}

static void answer(enum ksm_offload_op op, struct ksm_offload_req *req)
{
	u8 *a = kmap_local_page(pfn_to_page(PHYS_PFN(req->a)));
	u8 *b = op == KSM_OFFLOAD_COMPARE ?
		kmap_local_page(pfn_to_page(PHYS_PFN(req->b))) : NULL;

	if (!b) {
		req->result = ~crc32c(~0, a, PAGE_SIZE);
	} else {
		for (req->result = 0; req->result < PAGE_SIZE; req->result++)
			if (a[req->result] != b[req->result])
				break;
		kunmap_local(b);
	}
	kunmap_local(a);
	req->status = 0;
}

static void spoil(enum ksm_offload_op op, struct ksm_offload_req *req)
{
	u32 noise = prandom_u32_state(&random);

	if (op == KSM_OFFLOAD_CHECKSUM)
		req->result = noise & 1 ? noise : 0;
	else if (req->result == PAGE_SIZE || noise & 1)
		req->result = (noise >> 1) % PAGE_SIZE;
	else
		req->result = PAGE_SIZE;
}

static void debug_finish(void *priv, struct ksm_offload_job *job)
{
	unsigned int i;

	for (i = 0; i < job->nr; i++) {
		answer(job->op, &job->reqs[i]);
		if (happens(READ_ONCE(lie)))
			spoil(job->op, &job->reqs[i]);
		if (happens(READ_ONCE(fail)))
			job->reqs[i].status = -EIO;
	}
}

static void debug_abandon(void *priv)
{
	hung = false;
}

static const struct ksm_offload_ops debug_ops = {
	.map = debug_map,
	.unmap = debug_unmap,
	.submit = debug_submit,
	.done = debug_done,
	.finish = debug_finish,
	.abandon = debug_abandon,
};

static struct ksm_offload_backend debug_backend = {
	.name = "debug",
	.ops = &debug_ops,
	.max_requests = 1024,
	.checksums = true,
};

static DEFINE_MUTEX(enable_mutex);
static bool enabled;

static int enable_store(const char *value, const struct kernel_param *kp)
{
	bool new;
	int err = kstrtobool(value, &new);

	if (err)
		return err;
	mutex_lock(&enable_mutex);
	if (new && !enabled) {
		prandom_seed_state(&random, seed);
		err = ksm_offload_register(&debug_backend);
		enabled = !err;
	} else if (!new && enabled) {
		ksm_offload_unregister(&debug_backend);
		WARN_ON_ONCE(mapped);
		enabled = false;
	}
	mutex_unlock(&enable_mutex);
	return err;
}

static const struct kernel_param_ops enable_ops = {
	.set = enable_store,
	.get = param_get_bool,
};
module_param_cb(enable, &enable_ops, &enabled, 0644);
MODULE_PARM_DESC(enable, "whether ksmd may use this backend");

static void __exit debug_exit(void)
{
	if (enabled)
		ksm_offload_unregister(&debug_backend);
}
module_exit(debug_exit);

MODULE_DESCRIPTION("KSM offload backend for tests");
MODULE_LICENSE("GPL");
