// SPDX-License-Identifier: GPL-2.0-only
/*
 * A DSA work queue that works for ksmd.
 *
 * A dedicated kernel work queue whose name is "ksm" may be bound to this
 * driver. A job of ksmd's becomes one batch descriptor, or one plain descriptor
 * where there is just one request, since DSA 1.0 refuses batches of one.
 * Completion is polled: the interrupt thread of this driver takes every
 * descriptor for one of the dmaengine's.
 */
#include <linux/crc32c.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/ksm_offload.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/swiotlb.h>
#include <uapi/linux/idxd.h>
#include "idxd.h"

#define KSM_WQ_NAME	"ksm"
#define KSM_MAX_BATCH	1024U
/* a batch of ksmd's candidates, the tree pages of a job */
#define KSM_MAPS	2
#define KSM_TEST_MS	100

/**
 * struct ksm_map - pages that the device may read
 * @kept: on the list of mappings that an unfinished job may still use
 * @used: between map and unmap
 * @nr: how many pages
 * @sgl: a scatterlist of that many entries
 * @pages: the pages
 */
struct ksm_map {
	struct list_head kept;
	bool used;
	unsigned int nr;
	struct scatterlist *sgl;
	struct page **pages;
};

/**
 * struct ksm_wq - a work queue in ksmd's service
 * @wq: the work queue
 * @backend: as which ksmd knows it
 * @size: the longest job
 * @descs: descriptors of a batch, read by the device
 * @descs_dma: their bus address
 * @comps: their completion records, written by the device
 * @comps_dma: their bus address
 * @desc: the descriptor that the device has, NULL if none
 * @abandoned: nobody waits for @desc any more
 * @maps: mappings, reused from job to job
 * @kept: mappings whose pages are held until @desc completes
 */
struct ksm_wq {
	struct idxd_wq *wq;
	struct ksm_offload_backend backend;
	unsigned int size;
	struct dsa_hw_desc *descs;
	dma_addr_t descs_dma;
	struct dsa_completion_record *comps;
	dma_addr_t comps_dma;
	struct idxd_desc *desc;
	bool abandoned;
	struct ksm_map maps[KSM_MAPS];
	struct list_head kept;
};

static struct device *ksm_dev(struct ksm_wq *kwq)
{
	return &kwq->wq->idxd->pdev->dev;
}

/* --- mappings -------------------------------------------------------------- */

static void ksm_map_free(struct ksm_map *map)
{
	kvfree(map->sgl);
	kvfree(map->pages);
	map->sgl = NULL;
	map->pages = NULL;
}

static int ksm_map_alloc(struct ksm_map *map, unsigned int size)
{
	map->sgl = kvmalloc_array(size, sizeof(*map->sgl), GFP_KERNEL);
	map->pages = kvmalloc_array(size, sizeof(*map->pages), GFP_KERNEL);
	if (map->sgl && map->pages)
		return 0;
	ksm_map_free(map);
	return -ENOMEM;
}

static void ksm_map_release(struct ksm_wq *kwq, struct ksm_map *map)
{
	dma_unmap_sg(ksm_dev(kwq), map->sgl, map->nr, DMA_TO_DEVICE);
	map->used = false;
}

/* The device has let go of everything. */
static void ksm_release_kept(struct ksm_wq *kwq)
{
	struct ksm_map *map, *next;
	unsigned int i;

	list_for_each_entry_safe(map, next, &kwq->kept, kept) {
		list_del(&map->kept);
		ksm_map_release(kwq, map);
		for (i = 0; i < map->nr; i++)
			put_page(map->pages[i]);
	}
}

static bool ksm_done(void *priv)
{
	struct ksm_wq *kwq = priv;

	return kwq->desc->completion->status != 0;
}

static void ksm_retire(struct ksm_wq *kwq)
{
	idxd_free_desc(kwq->wq, kwq->desc);
	kwq->desc = NULL;
	kwq->abandoned = false;
}

/* Whether the device is free: it may have completed late what was given up. */
static bool ksm_idle(struct ksm_wq *kwq)
{
	if (kwq->desc && kwq->abandoned && ksm_done(kwq)) {
		ksm_retire(kwq);
		ksm_release_kept(kwq);
	}
	return !kwq->desc;
}

static void *ksm_map(void *priv, struct page **pages, dma_addr_t *addresses,
		     unsigned int nr)
{
	struct ksm_wq *kwq = priv;
	struct ksm_map *map = NULL;
	struct scatterlist *sg;
	unsigned int i, at = 0;
	int segments;

	/* no use in mapping anything that cannot be submitted */
	if (!ksm_idle(kwq) || nr > KSM_MAX_BATCH)
		return ERR_PTR(-EBUSY);
	for (i = 0; i < KSM_MAPS && !map; i++)
		if (!kwq->maps[i].used)
			map = &kwq->maps[i];
	if (!map)
		return ERR_PTR(-EBUSY);

	sg_init_table(map->sgl, nr);
	for_each_sg(map->sgl, sg, nr, i)
		sg_set_page(sg, pages[i], PAGE_SIZE, 0);

	/* one range of bus addresses and one flush, however many pages */
	segments = dma_map_sg(ksm_dev(kwq), map->sgl, nr, DMA_TO_DEVICE);
	if (!segments)
		return ERR_PTR(-ENOMEM);
	for_each_sg(map->sgl, sg, segments, i) {
		dma_addr_t address = sg_dma_address(sg);
		unsigned int left = sg_dma_len(sg);

		for (; left; left -= PAGE_SIZE, address += PAGE_SIZE)
			addresses[at++] = address;
	}
	memcpy(map->pages, pages, nr * sizeof(*pages));
	map->nr = nr;
	map->used = true;
	return map;
}

static void ksm_unmap(void *priv, void *cookie)
{
	struct ksm_wq *kwq = priv;
	struct ksm_map *map = cookie;
	unsigned int i;

	if (!kwq->desc) {
		ksm_map_release(kwq, map);
		return;
	}
	/* the device may read these pages yet: they stay, and stay mapped */
	for (i = 0; i < map->nr; i++)
		get_page(map->pages[i]);
	list_add(&map->kept, &kwq->kept);
}

/* --- jobs ------------------------------------------------------------------ */

static void ksm_fill(struct dsa_hw_desc *hw, enum ksm_offload_op op,
		     struct ksm_offload_req *req, dma_addr_t completion)
{
	hw->flags = IDXD_OP_FLAG_CRAV | IDXD_OP_FLAG_RCR;
	hw->completion_addr = completion;
	hw->src_addr = req->a;
	hw->xfer_size = PAGE_SIZE;
	if (op == KSM_OFFLOAD_COMPARE) {
		hw->opcode = DSA_OPCODE_COMPARE;
		hw->src2_addr = req->b;
	} else {
		hw->opcode = DSA_OPCODE_CRCGEN;
		hw->dst_addr = 0;
	}
	hw->priv = 1;
}

static int ksm_submit(void *priv, struct ksm_offload_job *job)
{
	struct ksm_wq *kwq = priv;
	struct idxd_desc *desc;
	unsigned int i;
	int err;

	if (!ksm_idle(kwq))
		return -EBUSY;
	if (job->nr > kwq->size)
		return -EINVAL;

	desc = idxd_alloc_desc(kwq->wq, IDXD_OP_NONBLOCK);
	if (IS_ERR(desc))
		return PTR_ERR(desc);

	if (job->nr == 1) {
		ksm_fill(desc->hw, job->op, job->reqs, desc->compl_dma);
	} else {
		/*
		 * The memory is ours and mostly as the last job left it: all
		 * fields that any operation uses are written, the others never.
		 */
		for (i = 0; i < job->nr; i++) {
			kwq->comps[i].status = DSA_COMP_NONE;
			ksm_fill(&kwq->descs[i], job->op, &job->reqs[i],
				 kwq->comps_dma + i * sizeof(*kwq->comps));
		}
		desc->hw->flags = IDXD_OP_FLAG_CRAV | IDXD_OP_FLAG_RCR;
		desc->hw->opcode = DSA_OPCODE_BATCH;
		desc->hw->completion_addr = desc->compl_dma;
		desc->hw->desc_list_addr = kwq->descs_dma;
		desc->hw->desc_count = job->nr;
		desc->hw->priv = 1;
	}

	kwq->desc = desc;
	err = idxd_submit_desc(kwq->wq, desc);
	if (err)
		ksm_retire(kwq);
	return err == -EIO || err == -ENXIO ? -ENODEV : err;
}

static void ksm_read(struct ksm_offload_req *req, enum ksm_offload_op op,
		     struct dsa_completion_record *comp)
{
	if ((comp->status & DSA_COMP_STATUS_MASK) != DSA_COMP_SUCCESS) {
		req->status = -EIO;
		return;
	}
	req->status = 0;
	if (op == KSM_OFFLOAD_CHECKSUM)
		req->result = comp->crc_val;
	else if (!comp->result)
		req->result = PAGE_SIZE;
	else if (comp->bytes_completed < PAGE_SIZE)
		req->result = comp->bytes_completed;
	else
		req->status = -EIO;
}

static void ksm_finish(void *priv, struct ksm_offload_job *job)
{
	struct ksm_wq *kwq = priv;
	unsigned int i;

	/* the records were written before the status that ksm_done() saw */
	dma_rmb();
	if (job->nr == 1) {
		ksm_read(job->reqs, job->op, kwq->desc->completion);
	} else {
		/* whatever the batch's own status: each record speaks for itself */
		for (i = 0; i < job->nr; i++)
			ksm_read(&job->reqs[i], job->op, &kwq->comps[i]);
	}
	ksm_retire(kwq);
}

static void ksm_abandon(void *priv)
{
	struct ksm_wq *kwq = priv;

	kwq->abandoned = true;
	dev_warn_ratelimited(ksm_dev(kwq), "%s: a job for ksmd did not complete\n",
			     kwq->backend.name);
}

static const struct ksm_offload_ops ksm_ops = {
	.map = ksm_map,
	.unmap = ksm_unmap,
	.submit = ksm_submit,
	.done = ksm_done,
	.finish = ksm_finish,
	.abandon = ksm_abandon,
};

/* --- attach and detach ------------------------------------------------------ */

static int ksm_test_job(struct ksm_wq *kwq, struct ksm_offload_job *job)
{
	unsigned long limit = jiffies + msecs_to_jiffies(KSM_TEST_MS);
	int err = ksm_submit(kwq, job);

	if (err)
		return err;
	while (!ksm_done(kwq)) {
		if (time_after(jiffies, limit)) {
			ksm_abandon(kwq);
			return -ETIMEDOUT;
		}
		usleep_range(10, 50);
	}
	ksm_finish(kwq, job);
	return 0;
}

/*
 * ksmd's checksums come from the device or, where it fails, from the processor:
 * the two must agree. So must what "different at" means.
 */
static int ksm_self_test(struct ksm_wq *kwq)
{
	struct ksm_offload_req reqs[2] = {};
	struct ksm_offload_job job = { .nr = ARRAY_SIZE(reqs), .reqs = reqs };
	const unsigned int differ = PAGE_SIZE - 3;
	struct page *pages[2];
	dma_addr_t at[2];
	u8 *data[2];
	void *cookie;
	int i, err = -ENOMEM;

	pages[0] = alloc_page(GFP_KERNEL | __GFP_ZERO);
	pages[1] = alloc_page(GFP_KERNEL | __GFP_ZERO);
	if (!pages[0] || !pages[1])
		goto free;
	data[0] = page_address(pages[0]);
	data[1] = page_address(pages[1]);
	for (i = 0; i < PAGE_SIZE; i++)
		data[1][i] = i ^ (i >> 8);
	cookie = ksm_map(kwq, pages, at, ARRAY_SIZE(pages));
	err = PTR_ERR_OR_ZERO(cookie);
	if (err)
		goto free;

	reqs[0].a = at[0];
	reqs[1].a = at[1];
	job.op = KSM_OFFLOAD_CHECKSUM;
	err = ksm_test_job(kwq, &job);
	for (i = 0; !err && i < ARRAY_SIZE(reqs); i++)
		if (reqs[i].status ||
		    reqs[i].result != ~crc32c(~0, data[i], PAGE_SIZE))
			err = -EIO;
	if (err)
		goto unmap;

	memcpy(data[0], data[1], PAGE_SIZE);
	data[0][differ] ^= 1;
	reqs[0].b = at[1];
	reqs[1].b = at[1];
	job.op = KSM_OFFLOAD_COMPARE;
	err = ksm_test_job(kwq, &job);
	if (!err && (reqs[0].status || reqs[0].result != differ ||
		     reqs[1].status || reqs[1].result != PAGE_SIZE))
		err = -EIO;
	job.nr = 1;
	if (!err)
		err = ksm_test_job(kwq, &job);
	if (!err && (reqs[0].status || reqs[0].result != differ))
		err = -EIO;
unmap:
	ksm_unmap(kwq, cookie);
free:
	for (i = 0; i < ARRAY_SIZE(pages); i++)
		if (pages[i])
			put_page(pages[i]);
	return err;
}

static void ksm_free(struct ksm_wq *kwq)
{
	unsigned int i;

	for (i = 0; i < KSM_MAPS; i++)
		ksm_map_free(&kwq->maps[i]);
	if (kwq->descs)
		dma_free_coherent(ksm_dev(kwq), kwq->size * sizeof(*kwq->descs),
				  kwq->descs, kwq->descs_dma);
	if (kwq->comps)
		dma_free_coherent(ksm_dev(kwq), kwq->size * sizeof(*kwq->comps),
				  kwq->comps, kwq->comps_dma);
	kfree(kwq);
}

static struct ksm_wq *ksm_alloc(struct idxd_wq *wq)
{
	struct ksm_wq *kwq = kzalloc(sizeof(*kwq), GFP_KERNEL);
	struct device *dev = &wq->idxd->pdev->dev;
	unsigned int i;
	int err = 0;

	if (!kwq)
		return NULL;
	kwq->wq = wq;
	kwq->size = clamp(wq->max_batch_size, 1U, KSM_MAX_BATCH);
	INIT_LIST_HEAD(&kwq->kept);
	kwq->descs = dma_alloc_coherent(dev, kwq->size * sizeof(*kwq->descs),
					&kwq->descs_dma, GFP_KERNEL);
	kwq->comps = dma_alloc_coherent(dev, kwq->size * sizeof(*kwq->comps),
					&kwq->comps_dma, GFP_KERNEL);
	for (i = 0; i < KSM_MAPS; i++)
		err |= ksm_map_alloc(&kwq->maps[i], KSM_MAX_BATCH);
	if (!kwq->descs || !kwq->comps || err) {
		ksm_free(kwq);
		return NULL;
	}
	kwq->backend = (struct ksm_offload_backend) {
		.name = dev_name(wq_confdev(wq)),
		.ops = &ksm_ops,
		.priv = kwq,
		.max_requests = kwq->size,
		.checksums = true,
	};
	return kwq;
}

static void ksm_disable(struct ksm_wq *kwq)
{
	struct idxd_wq *wq = kwq->wq;

	/* a device that halted has been quiesced by its interrupt handler */
	if (!percpu_ref_is_dying(&wq->wq_active))
		__idxd_wq_quiesce(wq);
	/* drains and resets the queue: nothing is in flight afterwards */
	drv_disable_wq(wq);
	ksm_release_kept(kwq);
	ksm_free(kwq);
}

static int idxd_ksm_drv_probe(struct idxd_dev *idxd_dev)
{
	struct idxd_wq *wq = idxd_dev_to_wq(idxd_dev);
	struct idxd_device *idxd = wq->idxd;
	struct device *dev = wq_confdev(wq);
	struct ksm_wq *kwq;
	int err;

	if (idxd->state != IDXD_DEV_ENABLED || idxd->data->type != IDXD_TYPE_DSA)
		return -ENXIO;

	mutex_lock(&wq->wq_lock);
	err = -ENODEV;
	if (strcmp(wq->name, KSM_WQ_NAME))
		goto unlock;
	err = -EOPNOTSUPP;
	if (!wq_dedicated(wq)) {
		dev_info(dev, "ksmd needs a dedicated work queue\n");
		goto unlock;
	}
	if (is_swiotlb_force_bounce(&idxd->pdev->dev)) {
		dev_info(dev, "pages would be copied before they are compared\n");
		goto unlock;
	}

	wq->type = IDXD_WQT_KERNEL;
	err = drv_enable_wq(wq);
	if (err) {
		err = -ENXIO;
		goto type;
	}
	kwq = ksm_alloc(wq);
	if (!kwq) {
		drv_disable_wq(wq);
		err = -ENOMEM;
		goto type;
	}
	err = ksm_self_test(kwq);
	if (err) {
		dev_err(dev, "self-test failed: %d\n", err);
		goto disable;
	}
	err = ksm_offload_register(&kwq->backend);
	if (err)
		goto disable;
	dev_set_drvdata(dev, kwq);
	idxd->cmd_status = 0;
	mutex_unlock(&wq->wq_lock);
	return 0;

disable:
	ksm_disable(kwq);
type:
	wq->type = IDXD_WQT_NONE;
unlock:
	mutex_unlock(&wq->wq_lock);
	return err;
}

static void idxd_ksm_drv_remove(struct idxd_dev *idxd_dev)
{
	struct idxd_wq *wq = idxd_dev_to_wq(idxd_dev);
	struct ksm_wq *kwq = dev_get_drvdata(wq_confdev(wq));

	/* waits for ksmd's batch; from here on it has no use for the queue */
	ksm_offload_unregister(&kwq->backend);
	mutex_lock(&wq->wq_lock);
	ksm_disable(kwq);
	mutex_unlock(&wq->wq_lock);
}

static enum idxd_dev_type dev_types[] = {
	IDXD_DEV_WQ,
	IDXD_DEV_NONE,
};

struct idxd_device_driver idxd_ksm_drv = {
	.probe = idxd_ksm_drv_probe,
	.remove = idxd_ksm_drv_remove,
	.name = "ksm",
	.type = dev_types,
};
