// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page comparison and checksums for ksmd, by a device where there is one.
 *
 * This file stands between mm/ksm.c, which knows trees and pages, and the
 * drivers of devices, which know descriptors. It maps pages once per batch,
 * decides what is worth a device's time, sleeps until a job is done, and
 * answers on the processor whatever a device does not. Its answers are hints:
 * mm/ksm.c compares on the processor, under write protection, before it merges.
 */
#include <linux/crc32c.h>
#include <linux/hash.h>
#include <linux/highmem.h>
#include <linux/hrtimer.h>
#include <linux/kobject.h>
#include <linux/ksm_offload.h>
#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/xxhash.h>

#include "ksm_offload.h"

#define CREATE_TRACE_POINTS
#include <trace/events/ksm_offload.h>

/* Serialises jobs with the coming and going of backends and with modes. */
static DEFINE_MUTEX(ksm_offload_mutex);
static LIST_HEAD(backends);
/* the backend in use; NULL: the processor */
static struct ksm_offload_backend *backend;
/* what the administrator asked for; empty: any that is there */
static char wanted[32];

/* Serialises writers of the mode; taken before ksm_offload_mutex. */
static DEFINE_MUTEX(mode_mutex);
static enum ksm_offload_mode mode;
DEFINE_STATIC_KEY_FALSE(ksm_offload_each);

/*
 * Checksums of two kinds must never be compared with each other. While a device
 * may checksum, the processor computes what the device would.
 */
static bool crc;
static u32 zero_crc;

enum wait_mode { WAIT_FIXED, WAIT_ADAPTIVE, WAIT_POLL };
static int wait_mode = WAIT_ADAPTIVE;

static unsigned int batch_size = 256;
static unsigned int tree_levels = 3;
static unsigned int prefix_bytes = 64;
static unsigned int min_requests = 4;
static unsigned int wait_us = 50;
static unsigned int timeout_ms = 100;

struct ksm_offload_stats ksm_offload_stats;

/* How long a look at the device lasts before the thread sleeps again. */
#define LOOK_NS		1000
/* What a timer and the way back to the thread cost: sleep that much less. */
#define WAKE_NS		2000
#define NAP_MAX_NS	NSEC_PER_MSEC
/* So many failed jobs in a row make the device rest for a while. */
#define PATIENCE	3
#define REST_MAX	4096

static unsigned int failures;	/* in a row */
static unsigned int rest;	/* jobs that stay on the processor */
static unsigned int next_rest = 1;

static u64 expected_ns[2][12];	/* by operation and by log2 of the requests */

#define TABLE_BITS	11	/* twice KSM_OFFLOAD_MAX_BATCH */

/**
 * struct batch - the batch in hand
 * @nr: candidate pages
 * @pages: the candidate pages
 * @candidates: their bus addresses, once @cookie is valid
 * @cookie: mapping of the candidates; NULL: not needed so far
 * @unmappable: mapping failed, do not try again in this batch
 * @trees: distinct tree pages of the job in hand
 * @tree_addresses: their bus addresses
 * @reqs: requests of the job in hand
 * @origin: index of the pair that a request answers
 * @place: index in @trees of a request's tree page
 * @table: finds a tree page in @trees; entry + 1, 0 is free
 */
struct batch {
	unsigned int nr;
	struct page **pages;
	dma_addr_t candidates[KSM_OFFLOAD_MAX_BATCH];
	void *cookie;
	bool unmappable;
	struct page *trees[KSM_OFFLOAD_MAX_BATCH];
	dma_addr_t tree_addresses[KSM_OFFLOAD_MAX_BATCH];
	struct ksm_offload_req reqs[KSM_OFFLOAD_MAX_BATCH];
	u16 origin[KSM_OFFLOAD_MAX_BATCH];
	u16 place[KSM_OFFLOAD_MAX_BATCH];
	u16 table[1 << TABLE_BITS];
};

static struct batch *batch;

enum ksm_offload_mode ksm_offload_mode(void)
{
	return READ_ONCE(mode);
}

unsigned int ksm_offload_batch_size(void)
{
	return READ_ONCE(batch_size);
}

unsigned int ksm_offload_tree_levels(void)
{
	return READ_ONCE(tree_levels);
}

/**
 * ksm_offload_by_prefix - whether the beginnings of pages may decide
 *
 * Those that tree nodes keep of their pages, to be precise: the first bytes of
 * the ones that ksm_offload_decide() would look at.
 */
bool ksm_offload_by_prefix(void)
{
	return READ_ONCE(prefix_bytes) >= sizeof(u32);
}

/* --- on the processor ---------------------------------------------------- */

/* How two pages compare from @offset on. */
static int order_from(struct page *a, struct page *b, unsigned int offset,
		      unsigned int length)
{
	u8 *left = kmap_local_page(a), *right = kmap_local_page(b);
	int order = memcmp(left + offset, right + offset, length);

	kunmap_local(right);
	kunmap_local(left);
	return order;
}

/*
 * A device tells where two pages differ, not how. If the bytes there have
 * become equal since, a page has changed: look at all that follows.
 */
static int order_at(struct page *a, struct page *b, u32 offset)
{
	if (offset >= PAGE_SIZE)
		return 0;
	return order_from(a, b, offset, PAGE_SIZE - offset);
}

/**
 * ksm_offload_crc - whether checksums are a device's at the moment
 * @zero: the checksum of a page of zeroes, if so
 */
bool ksm_offload_crc(u32 *zero)
{
	*zero = zero_crc;
	return READ_ONCE(crc);
}

/* What a device that checksums makes of a page. */
u32 ksm_offload_cpu_crc(struct page *page)
{
	void *address = kmap_local_page(page);
	u32 sum = ~crc32c(~0, address, PAGE_SIZE);

	kunmap_local(address);
	return sum;
}

static u32 cpu_checksum(struct page *page)
{
	void *address;
	u32 sum;

	if (crc)
		return ksm_offload_cpu_crc(page);
	address = kmap_local_page(page);
	sum = xxhash(address, PAGE_SIZE, 0);
	kunmap_local(address);
	return sum;
}

/**
 * ksm_offload_decide - compare two pages by their beginnings
 * @page: the candidate page
 * @tree: the page of the tree
 * @order: how they compare, if they are found to differ
 *
 * Most pages that meet in a tree differ in their first bytes. A cache line from
 * each costs the processor less than a descriptor does.
 *
 * Return: whether the pages differ in what was looked at.
 */
bool ksm_offload_decide(struct page *page, struct page *tree, int *order)
{
	unsigned int length = READ_ONCE(prefix_bytes);

	if (!length)
		return false;
	*order = order_from(page, tree, 0, length);
	if (!*order && length < PAGE_SIZE)
		return false;
	ksm_offload_stats.cpu_decided++;
	return true;
}

/* --- on the device -------------------------------------------------------- */

static void nap(u64 ns)
{
	ktime_t expires = ns_to_ktime(ns);
	u64 before = ktime_get_ns();

	/* idle, not uninterruptible: waiting for a device is not load */
	set_current_state(TASK_IDLE);
	schedule_hrtimeout_range(&expires, ns >> 4, HRTIMER_MODE_REL);
	ksm_offload_stats.sleep_ns += ktime_get_ns() - before;
}

static bool look(u64 *now)
{
	u64 until = *now + LOOK_NS;

	do {
		if (backend->ops->done(backend->priv))
			return true;
		cpu_relax();
		*now = ktime_get_ns();
	} while (*now < until);
	return false;
}

/*
 * Sleep until the job should be done, then look; learn from what was seen. A
 * job found done at the first look may have been done for long, so the estimate
 * shrinks a little each time; one that was waited for corrects it.
 */
static bool wait_for(struct ksm_offload_job *job)
{
	u64 *expected = &expected_ns[job->op][ilog2(job->nr)];
	u64 start = ktime_get_ns(), now = start;
	u64 limit = start + (u64)READ_ONCE(timeout_ms) * NSEC_PER_MSEC;
	int how = READ_ONCE(wait_mode);
	bool first = true;
	u64 length = 0;

	if (how == WAIT_FIXED)
		length = (u64)READ_ONCE(wait_us) * NSEC_PER_USEC;
	else if (how == WAIT_ADAPTIVE && *expected > 2 * WAKE_NS)
		length = *expected - WAKE_NS;

	for (;;) {
		if (length) {
			nap(length);
			now = ktime_get_ns();
		}
		if (look(&now))
			break;
		if (now >= limit)
			return false;
		first = false;
		if (how == WAIT_POLL) {
			cond_resched();
			now = ktime_get_ns();
		} else {
			length = clamp_t(u64, (now - start) / 4, WAKE_NS,
					 NAP_MAX_NS);
		}
	}
	now = ktime_get_ns() - start;
	if (first && length)
		*expected -= *expected / 32;
	else if (*expected)
		*expected = *expected - *expected / 4 + now / 4;
	else
		*expected = now;
	return true;
}

static void failed(void)
{
	if (++failures < PATIENCE)
		return;
	failures = 0;
	rest = next_rest;
	next_rest = min_t(unsigned int, next_rest * 2, REST_MAX);
}

/* Whether the device has work to do for us at the moment. */
static bool available(void)
{
	if (!backend)
		return false;
	if (!rest)
		return true;
	rest--;
	return false;
}

/*
 * Run one job. Afterwards every request has a status; those of a job that was
 * not accepted or not finished have an error.
 */
static void run(enum ksm_offload_op op, struct ksm_offload_req *reqs,
		unsigned int nr)
{
	struct ksm_offload_job job = { .op = op, .nr = nr, .reqs = reqs };
	struct ksm_offload_stats *stats = &ksm_offload_stats;
	u64 start = trace_ksm_offload_job_enabled() ? ktime_get_ns() : 0;
	unsigned int i, bad = 0;
	int err;

	for (i = 0; i < nr; i++)
		reqs[i].status = -EINPROGRESS;

	err = backend->ops->submit(backend->priv, &job);
	if (!err && !wait_for(&job)) {
		backend->ops->abandon(backend->priv);
		stats->timeouts++;
		err = -ETIMEDOUT;
	}
	if (err) {
		for (i = 0; i < nr; i++)
			reqs[i].status = err;
		bad = nr;
		failed();
		/* a device that does not answer is not asked again at once */
		if (err == -ETIMEDOUT || err == -ENODEV)
			failures = max_t(unsigned int, failures, PATIENCE - 1);
	} else {
		backend->ops->finish(backend->priv, &job);
		for (i = 0; i < nr; i++)
			bad += reqs[i].status != 0;
		if (bad == nr) {
			failed();
		} else {
			failures = 0;
			next_rest = 1;
		}
	}
	stats->jobs++;
	stats->errors += bad;
	if (op == KSM_OFFLOAD_COMPARE)
		stats->compares += nr;
	else
		stats->checksums += nr;
	trace_ksm_offload_job(op, nr, bad, start ? ktime_get_ns() - start : 0);
}

static bool map_candidates(void)
{
	void *cookie;

	if (batch->cookie)
		return true;
	if (batch->unmappable)
		return false;
	cookie = backend->ops->map(backend->priv, batch->pages,
				   batch->candidates, batch->nr);
	if (IS_ERR(cookie)) {
		batch->unmappable = true;
		return false;
	}
	batch->cookie = cookie;
	return true;
}

/* Index of @page among the tree pages of the job in hand; new ones are added. */
static unsigned int tree_index(struct page *page, unsigned int *nr)
{
	unsigned int at = hash_ptr(page, TABLE_BITS);

	while (batch->table[at]) {
		unsigned int found = batch->table[at] - 1;

		if (batch->trees[found] == page)
			return found;
		at = (at + 1) & ((1 << TABLE_BITS) - 1);
	}
	batch->trees[*nr] = page;
	batch->table[at] = ++*nr;
	return *nr - 1;
}

/* The requests of @nr pairs from @pairs on that nobody has decided yet. */
static void compare_chunk(struct ksm_offload_pair *pairs, unsigned int nr)
{
	unsigned int i, trees = 0;
	void *cookie;

	memset(batch->table, 0, sizeof(batch->table));
	for (i = 0; i < nr; i++)
		batch->place[i] = tree_index(pairs[batch->origin[i]].tree,
					     &trees);
	cookie = backend->ops->map(backend->priv, batch->trees,
				   batch->tree_addresses, trees);
	if (IS_ERR(cookie)) {
		for (i = 0; i < nr; i++)
			batch->reqs[i].status = PTR_ERR(cookie);
		ksm_offload_stats.errors += nr;
		failed();
		return;
	}
	for (i = 0; i < nr; i++) {
		struct ksm_offload_req *req = &batch->reqs[i];

		req->a = batch->candidates[pairs[batch->origin[i]].slot];
		req->b = batch->tree_addresses[batch->place[i]];
	}
	run(KSM_OFFLOAD_COMPARE, batch->reqs, nr);
	backend->ops->unmap(backend->priv, cookie);
}

static void settle(struct ksm_offload_pair *pair, struct ksm_offload_req *req)
{
	struct page *page = batch->pages[pair->slot];

	if (!req->status) {
		pair->order = order_at(page, pair->tree, req->result);
	} else {
		ksm_offload_stats.fallbacks++;
		pair->order = order_from(page, pair->tree, 0, PAGE_SIZE);
	}
}

/**
 * ksm_offload_compare - how candidate pages compare with pages of a tree
 * @pairs: the pairs; every one has its answer afterwards
 * @nr: how many, not more than KSM_OFFLOAD_MAX_BATCH
 */
void ksm_offload_compare(struct ksm_offload_pair *pairs, unsigned int nr)
{
	unsigned int i, done, chunk;

	ksm_offload_stats.rounds++;
	if (nr < READ_ONCE(min_requests) || !available() || !map_candidates()) {
		for (i = 0; i < nr; i++) {
			pairs[i].order = order_from(batch->pages[pairs[i].slot],
						    pairs[i].tree, 0, PAGE_SIZE);
			cond_resched();
		}
		return;
	}
	for (done = 0; done < nr; done += chunk) {
		chunk = min(nr - done, backend->max_requests);
		for (i = 0; i < chunk; i++)
			batch->origin[i] = done + i;
		compare_chunk(pairs, chunk);
		for (i = 0; i < chunk; i++)
			settle(&pairs[done + i], &batch->reqs[i]);
		cond_resched();
	}
}

/**
 * ksm_offload_checksum - checksum candidate pages
 * @slots: indices of the pages in the batch
 * @sums: their checksums
 * @nr: how many
 */
void ksm_offload_checksum(const u16 *slots, u32 *sums, unsigned int nr)
{
	unsigned int i, done, chunk;
	bool device;

	device = nr >= READ_ONCE(min_requests) && available() &&
		 backend->checksums && map_candidates();
	for (done = 0; done < nr; done += chunk) {
		chunk = device ? min(nr - done, backend->max_requests) : nr;
		for (i = 0; device && i < chunk; i++)
			batch->reqs[i].a = batch->candidates[slots[done + i]];
		if (device)
			run(KSM_OFFLOAD_CHECKSUM, batch->reqs, chunk);
		for (i = 0; i < chunk; i++) {
			if (device && !batch->reqs[i].status) {
				sums[done + i] = batch->reqs[i].result;
				continue;
			}
			ksm_offload_stats.fallbacks += device;
			sums[done + i] = cpu_checksum(batch->pages[slots[done + i]]);
			cond_resched();
		}
	}
}

/**
 * ksm_offload_begin - open a batch
 * @pages: its candidate pages, referenced by the caller
 * @nr: how many
 *
 * Backends neither come nor go until ksm_offload_end().
 */
void ksm_offload_begin(struct page **pages, unsigned int nr)
{
	mutex_lock(&ksm_offload_mutex);
	batch->pages = pages;
	batch->nr = nr;
	batch->unmappable = false;
}

/** ksm_offload_end - close the batch: no device holds on to its pages */
void ksm_offload_end(void)
{
	if (batch->cookie)
		backend->ops->unmap(backend->priv, batch->cookie);
	batch->cookie = NULL;
	mutex_unlock(&ksm_offload_mutex);
}

/* Mode "dsa": every question is a job of its own, as the paper's DSA-ksm. */
int __ksm_offload_memcmp(struct page *page, struct page *tree)
{
	struct ksm_offload_pair pair = { .slot = 0, .tree = tree };
	int order;

	if (ksm_offload_decide(page, tree, &order))
		return order;
	ksm_offload_begin(&page, 1);
	if (available() && map_candidates()) {
		batch->origin[0] = 0;
		compare_chunk(&pair, 1);
		settle(&pair, &batch->reqs[0]);
	} else {
		pair.order = order_from(page, tree, 0, PAGE_SIZE);
	}
	ksm_offload_end();
	return pair.order;
}

u32 __ksm_offload_checksum(struct page *page)
{
	u32 sum;

	ksm_offload_begin(&page, 1);
	if (available() && backend->checksums && map_candidates()) {
		batch->reqs[0].a = batch->candidates[0];
		run(KSM_OFFLOAD_CHECKSUM, batch->reqs, 1);
		sum = batch->reqs[0].result;
		if (batch->reqs[0].status) {
			ksm_offload_stats.fallbacks++;
			sum = cpu_checksum(page);
		}
	} else {
		sum = cpu_checksum(page);
	}
	ksm_offload_end();
	return sum;
}

/* --- backends ------------------------------------------------------------- */

static void choose(void)
{
	struct ksm_offload_backend *each, *found = NULL;

	list_for_each_entry(each, &backends, list) {
		if (wanted[0] ? !strcmp(each->name, wanted) : !found)
			found = each;
	}
	WRITE_ONCE(crc, mode != KSM_MODE_CPU && found && found->checksums);
	if (found == backend)
		return;
	backend = found;
	failures = 0;
	rest = 0;
	next_rest = 1;
	memset(expected_ns, 0, sizeof(expected_ns));
}

/**
 * ksm_offload_register - offer a backend to ksmd
 * @new: the backend; stays with the caller
 *
 * Return: 0, -EINVAL if it is not complete, -EEXIST if its name is taken.
 */
int ksm_offload_register(struct ksm_offload_backend *new)
{
	struct ksm_offload_backend *each;
	int err = 0;

	if (!new->name || !new->max_requests || !new->ops->map ||
	    !new->ops->unmap || !new->ops->submit || !new->ops->done ||
	    !new->ops->finish || !new->ops->abandon)
		return -EINVAL;
	if (!strcmp(new->name, "cpu") || !strcmp(new->name, "auto") ||
	    strlen(new->name) >= sizeof(wanted))
		return -EINVAL;

	mutex_lock(&ksm_offload_mutex);
	list_for_each_entry(each, &backends, list)
		if (!strcmp(each->name, new->name))
			err = -EEXIST;
	if (!err) {
		new->max_requests = min_t(unsigned int, new->max_requests,
					  KSM_OFFLOAD_MAX_BATCH);
		list_add_tail(&new->list, &backends);
		choose();
	}
	mutex_unlock(&ksm_offload_mutex);
	return err;
}
EXPORT_SYMBOL_GPL(ksm_offload_register);

/**
 * ksm_offload_unregister - take a backend away from ksmd
 * @old: a registered backend
 *
 * Waits for the batch in hand. The rest of the work is the processor's, or
 * another backend's.
 */
void ksm_offload_unregister(struct ksm_offload_backend *old)
{
	mutex_lock(&ksm_offload_mutex);
	list_del(&old->list);
	choose();
	mutex_unlock(&ksm_offload_mutex);
}
EXPORT_SYMBOL_GPL(ksm_offload_unregister);

/* --- sysfs ---------------------------------------------------------------- */

static ssize_t emit_choice(char *buf, const char *const *names, int nr, int now)
{
	ssize_t at = 0;
	int i;

	for (i = 0; i < nr; i++)
		at += sysfs_emit_at(buf, at, i == now ? "%s[%s]" : "%s%s",
				    i ? " " : "", names[i]);
	return at + sysfs_emit_at(buf, at, "\n");
}

static const char *const mode_names[] = {
	[KSM_MODE_CPU] = "cpu",
	[KSM_MODE_DSA] = "dsa",
	[KSM_MODE_PARA_C] = "para_c",
	[KSM_MODE_PARA_T] = "para_t",
};

static ssize_t offload_mode_show(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	return emit_choice(buf, mode_names, ARRAY_SIZE(mode_names), mode);
}

static ssize_t offload_mode_store(struct kobject *kobj,
				  struct kobj_attribute *attr,
				  const char *buf, size_t count)
{
	int new = sysfs_match_string(mode_names, buf);

	if (new < 0)
		return -EINVAL;

	mutex_lock(&mode_mutex);
	if (new != KSM_MODE_CPU && !batch) {
		batch = kvzalloc(sizeof(*batch), GFP_KERNEL);
		if (!batch) {
			mutex_unlock(&mode_mutex);
			return -ENOMEM;
		}
	}
	mutex_lock(&ksm_offload_mutex);
	WRITE_ONCE(mode, new);
	choose();
	mutex_unlock(&ksm_offload_mutex);
	/* not under the lock that ksmd takes below that of memory hotplug */
	if (new == KSM_MODE_DSA)
		static_branch_enable(&ksm_offload_each);
	else
		static_branch_disable(&ksm_offload_each);
	mutex_unlock(&mode_mutex);
	return count;
}

static struct kobj_attribute offload_mode_attr = __ATTR_RW(offload_mode);

static ssize_t offload_backend_show(struct kobject *kobj,
				    struct kobj_attribute *attr, char *buf)
{
	struct ksm_offload_backend *each;
	ssize_t at;

	mutex_lock(&ksm_offload_mutex);
	at = sysfs_emit(buf, backend ? "cpu" : "[cpu]");
	list_for_each_entry(each, &backends, list)
		at += sysfs_emit_at(buf, at, each == backend ? " [%s]" : " %s",
				    each->name);
	at += sysfs_emit_at(buf, at, "\n");
	mutex_unlock(&ksm_offload_mutex);
	return at;
}

static ssize_t offload_backend_store(struct kobject *kobj,
				     struct kobj_attribute *attr,
				     const char *buf, size_t count)
{
	struct ksm_offload_backend *each;
	bool known = false;
	char name[sizeof(wanted)];

	if (strscpy(name, buf, sizeof(name)) < 0)
		return -EINVAL;
	strim(name);
	if (sysfs_streq(name, "auto"))
		name[0] = '\0';

	mutex_lock(&ksm_offload_mutex);
	known = !name[0] || !strcmp(name, "cpu");
	list_for_each_entry(each, &backends, list)
		known |= !strcmp(each->name, name);
	if (known) {
		strscpy(wanted, name, sizeof(wanted));
		choose();
	}
	mutex_unlock(&ksm_offload_mutex);
	return known ? count : -ENODEV;
}

static struct kobj_attribute offload_backend_attr = __ATTR_RW(offload_backend);

static const char *const wait_names[] = {
	[WAIT_FIXED] = "fixed",
	[WAIT_ADAPTIVE] = "adaptive",
	[WAIT_POLL] = "poll",
};

static ssize_t offload_wait_mode_show(struct kobject *kobj,
				      struct kobj_attribute *attr, char *buf)
{
	return emit_choice(buf, wait_names, ARRAY_SIZE(wait_names), wait_mode);
}

static ssize_t offload_wait_mode_store(struct kobject *kobj,
				       struct kobj_attribute *attr,
				       const char *buf, size_t count)
{
	int new = sysfs_match_string(wait_names, buf);

	if (new < 0)
		return -EINVAL;
	WRITE_ONCE(wait_mode, new);
	return count;
}

static struct kobj_attribute offload_wait_mode_attr =
	__ATTR_RW(offload_wait_mode);

/* A number that ksmd reads when it needs it. */
struct knob {
	struct kobj_attribute attr;
	unsigned int *value;
	unsigned int min;
	unsigned int max;
};

static ssize_t knob_show(struct kobject *kobj, struct kobj_attribute *attr,
			 char *buf)
{
	struct knob *knob = container_of(attr, struct knob, attr);

	return sysfs_emit(buf, "%u\n", READ_ONCE(*knob->value));
}

static ssize_t knob_store(struct kobject *kobj, struct kobj_attribute *attr,
			  const char *buf, size_t count)
{
	struct knob *knob = container_of(attr, struct knob, attr);
	unsigned int value;
	int err = kstrtouint(buf, 10, &value);

	if (err)
		return err;
	if (value < knob->min || value > knob->max)
		return -EINVAL;
	WRITE_ONCE(*knob->value, value);
	return count;
}

#define KNOB(_name, _value, _min, _max)					\
	static struct knob _name##_knob = {				\
		.attr = __ATTR(_name, 0644, knob_show, knob_store),	\
		.value = &(_value), .min = (_min), .max = (_max),	\
	}

KNOB(offload_batch_size, batch_size, 2, KSM_OFFLOAD_MAX_BATCH);
KNOB(offload_tree_levels, tree_levels, 1, KSM_OFFLOAD_MAX_LEVELS);
KNOB(offload_prefix_bytes, prefix_bytes, 0, PAGE_SIZE);
KNOB(offload_min_requests, min_requests, 1, KSM_OFFLOAD_MAX_BATCH);
KNOB(offload_wait_us, wait_us, 0, USEC_PER_SEC);
KNOB(offload_timeout_ms, timeout_ms, 1, 60 * MSEC_PER_SEC);

struct counter {
	struct kobj_attribute attr;
	unsigned long *value;
	unsigned long unit;
};

static ssize_t counter_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	struct counter *counter = container_of(attr, struct counter, attr);

	return sysfs_emit(buf, "%lu\n",
			  READ_ONCE(*counter->value) / counter->unit);
}

#define COUNTER(_name, _field, _unit)					\
	static struct counter _name##_counter = {			\
		.attr = __ATTR(_name, 0444, counter_show, NULL),	\
		.value = &ksm_offload_stats._field, .unit = (_unit),	\
	}

COUNTER(offload_batches, batches, 1);
COUNTER(offload_rounds, rounds, 1);
COUNTER(offload_jobs, jobs, 1);
COUNTER(offload_compares, compares, 1);
COUNTER(offload_checksums, checksums, 1);
COUNTER(offload_slots_used, slots_used, 1);
COUNTER(offload_slots_total, slots_total, 1);
COUNTER(offload_cpu_decided, cpu_decided, 1);
COUNTER(offload_fallbacks, fallbacks, 1);
COUNTER(offload_singles, singles, 1);
COUNTER(offload_errors, errors, 1);
COUNTER(offload_timeouts, timeouts, 1);
COUNTER(offload_restarts, restarts, 1);
COUNTER(offload_duplicates, duplicates, 1);
COUNTER(offload_false_equal, false_equal, 1);
COUNTER(offload_sleep_us, sleep_ns, NSEC_PER_USEC);

static struct attribute *offload_attrs[] = {
	&offload_mode_attr.attr,
	&offload_backend_attr.attr,
	&offload_wait_mode_attr.attr,
	&offload_batch_size_knob.attr.attr,
	&offload_tree_levels_knob.attr.attr,
	&offload_prefix_bytes_knob.attr.attr,
	&offload_min_requests_knob.attr.attr,
	&offload_wait_us_knob.attr.attr,
	&offload_timeout_ms_knob.attr.attr,
	&offload_batches_counter.attr.attr,
	&offload_rounds_counter.attr.attr,
	&offload_jobs_counter.attr.attr,
	&offload_compares_counter.attr.attr,
	&offload_checksums_counter.attr.attr,
	&offload_slots_used_counter.attr.attr,
	&offload_slots_total_counter.attr.attr,
	&offload_cpu_decided_counter.attr.attr,
	&offload_fallbacks_counter.attr.attr,
	&offload_singles_counter.attr.attr,
	&offload_errors_counter.attr.attr,
	&offload_timeouts_counter.attr.attr,
	&offload_restarts_counter.attr.attr,
	&offload_duplicates_counter.attr.attr,
	&offload_false_equal_counter.attr.attr,
	&offload_sleep_us_counter.attr.attr,
	NULL,
};

/* joins the files of mm/ksm.c, whose group has this name */
static const struct attribute_group offload_group = {
	.name = "ksm",
	.attrs = offload_attrs,
};

static int __init ksm_offload_init(void)
{
	zero_crc = ksm_offload_cpu_crc(ZERO_PAGE(0));
	return sysfs_merge_group(mm_kobj, &offload_group);
}

/* after the library that computes CRC32C has found the best way to do so */
late_initcall(ksm_offload_init);
