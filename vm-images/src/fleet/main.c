// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fleet run PLAN      load the VMs, let ksmd work on them, print what was measured
 * fleet hold PLAN     load the VMs, let ksmd work on them, and stay until SIGTERM; says "vm NUMBER PID" for each that
 *                     has loaded, "up", and "lost NUMBER" for one that has ended
 * fleet shares PID... the VMs stand still for a moment; which pages of these processes are zero, equal, unique
 * fleet dump PLAN VM  print a VM's pages, for a check against the plan's oracle
 *
 * Output of run: sections in brackets, then "end CRC32 BYTES" over all that stands before, so that a truncated or
 * garbled result cannot be taken for a whole one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fleet.h"

#define CGROUP "/sys/fs/cgroup/paraksm-vm1"
#define OTHERS "/sys/fs/cgroup/paraksm-others"
#define PERIOD_US 100000L	/* of a duty cycle */
#define WEIGHT_DEFAULT 100L
#define WEIGHT_MOST 10000L
#define PATIENCE_NS (3600ULL * 1000000000ULL)

struct fleet {
	struct plan plan;
	struct susy_row *rows;
	struct vm *vm;
	pid_t ksmd;
	int old_policy, old_nice;	/* ksmd's, put back at the end; below 0 the policy is not known */
	struct sched_param old_param;
	struct vm_answer app;		/* of VM 1's training */
	bool app_done;
	long passes_before;		/* ksmd may have run on this host before us */
	uint64_t start, ksmd_at_start, ksmd_at_end, window_ns;
	long weight;			/* as read back; -1: none */
	long others_weight, others_us;	/* of those that run beside VM 1; -1: none, or no limit */
};

static bool put(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");
	bool ok = file && fputs(text, file) >= 0;

	return file && !fclose(file) && ok;
}

static long get(const char *path)
{
	FILE *file = fopen(path, "r");
	long value = -1;

	if (file) {
		if (fscanf(file, "%ld", &value) != 1)
			value = -1;
		fclose(file);
	}
	return value;
}

/* VM 1 competes with ksmd as one of many busy VMs would: its weight is a VM's share of the machine slice. */
static bool weigh_vm1(struct fleet *f)
{
	char text[32];

	f->weight = -1;
	if (!f->plan.vm_weight)
		return true;
	put("/sys/fs/cgroup/cgroup.subtree_control", "+cpu");
	mkdir(CGROUP, 0755);
	snprintf(text, sizeof(text), "%ld", f->plan.vm_weight);
	if (!put(CGROUP "/cpu.weight", text)) {
		fprintf(stderr, "fleet: no cgroup v2 cpu controller for vm_weight: %m\n");
		return false;
	}
	snprintf(text, sizeof(text), "%d", f->vm[0].pid);
	f->weight = get(CGROUP "/cpu.weight");
	return put(CGROUP "/cgroup.procs", text);
}

/*
 * Those that run beside VM 1 weigh as much as so many VM 1s together, and if they work in a duty cycle they get a part of
 * each period and wait for the next: a part of a processor that does not grow when ksmd leaves it idle.
 */
static bool gather_others(struct fleet *f)
{
	long each = f->plan.vm_weight ? f->plan.vm_weight : WEIGHT_DEFAULT, all = each * (f->plan.vms - 1);
	char text[64];

	f->others_weight = f->others_us = -1;
	if (!f->plan.nested || f->plan.bystanders == BYSTANDERS_FROZEN || f->plan.vms < 2)
		return true;
	put("/sys/fs/cgroup/cgroup.subtree_control", "+cpu");
	mkdir(OTHERS, 0755);
	snprintf(text, sizeof(text), "%ld", all < WEIGHT_MOST ? all : WEIGHT_MOST);
	if (!put(OTHERS "/cpu.weight", text)) {
		fprintf(stderr, "fleet: no cgroup v2 cpu controller for bystanders: %m\n");
		return false;
	}
	if (f->plan.bystanders == BYSTANDERS_DUTY) {
		snprintf(text, sizeof(text), "%ld %ld", f->plan.bystander_percent * PERIOD_US / 100, PERIOD_US);
		if (!put(OTHERS "/cpu.max", text)) {
			fprintf(stderr, "fleet: cpu.max of bystanders (CONFIG_CFS_BANDWIDTH): %m\n");
			return false;
		}
		f->others_us = get(OTHERS "/cpu.max");
	}
	f->others_weight = get(OTHERS "/cpu.weight");
	for (long i = 1; i < f->plan.vms; i++) {
		snprintf(text, sizeof(text), "%d", f->vm[i].pid);
		if (!put(OTHERS "/cgroup.procs", text)) {
			fprintf(stderr, "fleet: VM %ld into its cgroup: %m\n", i + 1);
			return false;
		}
	}
	return true;
}

/* The training data of VMs that are processes; a real VM loads its own. */
static bool load_rows(struct fleet *f)
{
	if (f->plan.nested)
		return true;
	f->rows = calloc(f->plan.dataset_rows + 1, sizeof(*f->rows));
	if (!f->rows)
		return false;
	if (strcmp(f->plan.dataset, "-"))
		return susy_load(f->plan.dataset, f->plan.dataset_rows, f->rows);
	for (long r = 0; r < f->plan.dataset_rows; r++)
		susy_generate(f->plan.seed, r, &f->rows[r]);
	return true;
}

static bool load(struct fleet *f, bool tell)
{
	struct vm_answer ready;

	f->vm = calloc(f->plan.vms, sizeof(*f->vm));
	if (!f->vm || !load_rows(f))
		return false;
	if (f->plan.nested && !nested_prepare(&f->plan))
		return false;
	for (long i = 0, wave; i < f->plan.vms; i = wave) {
		wave = f->plan.nested && i + f->plan.vm_boots < f->plan.vms ? i + f->plan.vm_boots : f->plan.vms;
		for (long at = i; at < wave; at++)
			if (!vm_start(&f->vm[at], &f->plan, at, f->rows, f->ksmd))
				return false;
		for (long at = i; at < wave; at++) {
			if (!vm_receive(&f->vm[at], &ready)) {
				fprintf(stderr, "fleet: VM %ld died while it was loading\n", at + 1);
				return false;
			}
			if (tell)
				printf("vm %ld %d\n", at + 1, f->vm[at].pid);
		}
	}
	return true;
}

static void sleep_until(uint64_t when)
{
	struct timespec t = { .tv_sec = when / 1000000000ULL, .tv_nsec = when % 1000000000ULL };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

/* Woken at once, or whenever the scheduler finds it fair: ksmd would begin another pass meanwhile, and merge. */
static void hurry(bool yes)
{
	struct sched_param param = { .sched_priority = yes ? 1 : 0 };

	if (sched_setscheduler(0, yes ? SCHED_FIFO : SCHED_OTHER, &param))
		fprintf(stderr, "fleet: scheduling class: %m\n");
}

/* The period of a table: whether another row is due, and when the next will be. */
static bool due(uint64_t *next, uint64_t period)
{
	uint64_t now = now_ns();

	if (now < *next)
		return false;
	while (*next <= now)
		*next += period;
	return true;
}

static uint64_t vm_period(const struct fleet *f)
{
	return (uint64_t)f->plan.vm_sample_ms * 1000000ULL;
}

/* Let ksmd run without pause until it has finished so many passes; without samples, stop as soon as it has. */
static bool scan_flat_out(struct fleet *f, long passes, uint64_t start)
{
	uint64_t give_up = now_ns() + PATIENCE_NS, next = now_ns();
	uint64_t period = start ? (uint64_t)f->plan.sample_ms * 1000000ULL : 200000ULL;
	uint64_t next_vms = start + vm_period(f);
	bool done = false;

	/* a wake-up is not interrupted: small ones where nothing but the end of a pass matters */
	if (!ksm_write("sleep_millisecs", 0) || !ksm_write("pages_to_scan", start ? f->plan.pages_to_scan : 16))
		return false;
	hurry(!start);
	if (!ksm_write("run", 1))
		goto out;
	while (ksm_read("full_scans") - f->passes_before < passes) {
		next += period;
		sleep_until(next);
		if (start)
			sampler_take(start, f->ksmd, f->vm[0].pid);
		if (start && due(&next_vms, vm_period(f)))
			sampler_take_vms(now_ns() - start);
		if (now_ns() > give_up) {
			fprintf(stderr, "fleet: ksmd did not finish %ld passes\n", passes);
			goto out;
		}
	}
	done = ksm_write("run", 0);
out:
	hurry(false);
	return done;
}

static bool schedule(pid_t ksmd, int policy, const struct sched_param *param, int nice)
{
	if (!sched_setscheduler(ksmd, policy, param) && !setpriority(PRIO_PROCESS, ksmd, nice))
		return true;
	fprintf(stderr, "fleet: scheduling of ksmd: %m\n");
	return false;
}

static bool set_knobs(const struct fleet *f)
{
	struct sched_param param = { .sched_priority = f->plan.ksmd_rt_priority };

	return schedule(f->ksmd, param.sched_priority ? SCHED_FIFO : SCHED_OTHER, &param, f->plan.ksmd_nice) &&
	       ksm_write("pages_to_scan", f->plan.pages_to_scan) &&
	       ksm_write("sleep_millisecs", f->plan.sleep_millisecs);
}

static bool find_ksmd(struct fleet *f)
{
	f->ksmd = ksmd_pid();
	if (f->ksmd < 0) {
		fprintf(stderr, "fleet: there is no ksmd\n");
		return false;
	}
	f->old_policy = sched_getscheduler(f->ksmd);
	f->old_nice = getpriority(PRIO_PROCESS, f->ksmd);
	return !sched_getparam(f->ksmd, &f->old_param);
}

/* Nothing is scanned while memory fills. */
static bool quiet_ksm(void)
{
	if (ksm_read("pages_shared") > 0) {
		fprintf(stderr, "fleet: KSM already holds pages: echo 2 > /sys/kernel/mm/ksm/run first\n");
		return false;
	}
	return ksm_write("run", 2) && ksm_write("run", 0);
}

static bool prepare_ksm(const struct fleet *f)
{
	if (ksm_read("merge_across_nodes") >= 0 && !ksm_write("merge_across_nodes", f->plan.merge_across_nodes))
		return false;
	return ksm_write("max_page_sharing", f->plan.max_page_sharing) &&
	       ksm_write("use_zero_pages", f->plan.use_zero_pages) && settings_apply(&f->plan);
}

/* The work of one is the application; of several it has ended with the last of them, and all their results count. */
static void join_work(struct fleet *f)
{
	bool first = true;

	for (long i = 0; i < f->plan.vms; i++) {
		const struct vm_answer *work = &f->vm[i].work;

		if (!plan_works(&f->plan, i))
			continue;
		if (!f->vm[i].done)
			return;
		if (first || work->ended_ns > f->app.ended_ns) {
			f->app.ended_ns = work->ended_ns;
			f->app.ksmd_ns = work->ksmd_ns;
		}
		if (first || work->nanoseconds > f->app.nanoseconds)
			f->app.nanoseconds = work->nanoseconds;
		f->app.checksum = first ? work->checksum : mix64(f->app.checksum ^ work->checksum);
		first = false;
	}
	f->app_done = true;
}

/* Those from whom something is to come, and, where others work, VM 1: what they work with is there. */
static int watch(const struct fleet *f, struct pollfd *p, long *who)
{
	long last = f->plan.orders || f->plan.bystanders ? f->plan.vms : 1;
	int watched = 0;

	for (long i = 0; i < last; i++) {
		bool works = plan_works(&f->plan, i);

		if (works ? f->vm[i].done : i > 0 && !plan_runs(&f->plan, i))
			continue;
		p[watched] = (struct pollfd){ .fd = f->vm[i].fd, .events = POLLIN };
		who[watched++] = i;
	}
	return watched;
}

/* Wait for the next sample, or for one who finishes if that is earlier. */
static bool wait_app(struct fleet *f, uint64_t until)
{
	struct pollfd p[COMMANDS];
	long who[COMMANDS];
	uint64_t now = now_ns();
	struct timespec left = { 0 };
	int watched;

	if ((f->app_done && !f->plan.bystanders) || !f->plan.train) {
		sleep_until(until);
		return true;
	}
	if (until > now) {
		left.tv_sec = (until - now) / 1000000000ULL;
		left.tv_nsec = (until - now) % 1000000000ULL;
	}
	watched = watch(f, p, who);
	if (ppoll(p, watched, &left, NULL) <= 0)
		return true;
	for (int i = 0; i < watched; i++) {
		struct vm *vm = &f->vm[who[i]];

		if (!p[i].revents)
			continue;
		if (!plan_runs(&f->plan, who[i])) {
			nested_complain(vm);
			return false;
		}
		vm->done = vm_receive(vm, &vm->work);
		if (vm->done && !plan_works(&f->plan, who[i]))	/* once more, until the window closes */
			vm->done = vm_send(vm, VM_GO);
		if (!vm->done) {
			fprintf(stderr, "fleet: VM %ld died in the window\n", who[i] + 1);
			return false;
		}
	}
	join_work(f);
	return true;
}

/* Whoever looks at the machine from outside knows the window by our name. */
static void announce(bool open)
{
	prctl(PR_SET_NAME, open ? "window open" : "window closed");
	if (!open)
		prctl(PR_SET_NAME, "fleet");
}

static bool window(struct fleet *f)
{
	uint64_t start, end, next, next_vms, period = (uint64_t)f->plan.sample_ms * 1000000ULL;

	sampler_take_vms(0);
	announce(true);
	start = next = f->start = now_ns();
	next_vms = start + vm_period(f);
	end = start + (uint64_t)f->plan.window_ms * 1000000ULL;
	f->ksmd_at_start = task_runtime(f->ksmd);
	sampler_take(start, f->ksmd, f->vm[0].pid);
	for (long i = 0; i < f->plan.vms; i++)
		vm_send(&f->vm[i], VM_GO);
	if (f->plan.ksm && !ksm_write("run", 1))
		return false;
	while (now_ns() < end || (f->plan.train && !f->app_done)) {
		if (now_ns() > start + PATIENCE_NS) {
			fprintf(stderr, "fleet: the application did not finish\n");
			return false;
		}
		while (next <= now_ns())
			next += period;
		if (!wait_app(f, next))
			return false;
		sampler_take(start, f->ksmd, f->vm[0].pid);
		if (due(&next_vms, vm_period(f)))
			sampler_take_vms(now_ns() - start);
	}
	f->window_ns = now_ns() - start;
	f->ksmd_at_end = task_runtime(f->ksmd);
	announce(false);
	if (!ksm_write("run", 0))
		return false;
	sampler_take_vms(f->window_ns);
	return true;
}

static bool settle(struct fleet *f)
{
	struct vm_answer stopped;

	for (long i = 0; i < f->plan.vms; i++)
		if (!vm_send(&f->vm[i], VM_STOP) || !vm_receive(&f->vm[i], &stopped))
			return false;
	return true;
}

/* Every VM checks its memory; the sum of bad pages, or -1 if a VM was lost. */
static long verify(const struct fleet *f, unsigned long long *checked)
{
	struct vm_answer answer;
	long bad = 0;

	*checked = 0;
	for (long i = 0; i < f->plan.vms; i++) {
		if (!vm_send(&f->vm[i], VM_VERIFY) || !vm_receive(&f->vm[i], &answer)) {
			fprintf(stderr, "fleet: VM %ld was lost\n", i + 1);
			return -1;
		}
		bad += answer.bad_pages;
		*checked += answer.checked_pages;
	}
	return bad;
}

static void write_facts(const struct fleet *f, FILE *out)
{
	struct sched_param param = { 0 };

	sched_getparam(f->ksmd, &param);
	fprintf(out, "[facts]\n");
	fprintf(out, "ksmd_nice %d\n", getpriority(PRIO_PROCESS, f->ksmd));
	fprintf(out, "ksmd_policy %d\nksmd_rt_priority %d\n", sched_getscheduler(f->ksmd), param.sched_priority);
	fprintf(out, "vm_weight %ld\n", f->weight);
	if (f->plan.nested)
		fprintf(out, "others_weight %ld\nothers_us %ld\n", f->others_weight, f->others_us);
	fprintf(out, "pages_to_scan %ld\nsleep_millisecs %ld\n", ksm_read("pages_to_scan"), ksm_read("sleep_millisecs"));
	fprintf(out, "max_page_sharing %ld\n", ksm_read("max_page_sharing"));
	fprintf(out, "app_done %d\napp_ns %llu\napp_end_ns %llu\napp_checksum %016llx\n", f->app_done,
		(unsigned long long)f->app.nanoseconds,
		(unsigned long long)(f->app_done ? f->app.ended_ns - f->start : 0),
		(unsigned long long)f->app.checksum);
	fprintf(out, "window_ns %llu\nksmd_ns_to_app_end %llu\nksmd_ns_window %llu\n", (unsigned long long)f->window_ns,
		(unsigned long long)(f->app_done ? f->app.ksmd_ns - f->ksmd_at_start : 0),
		(unsigned long long)(f->ksmd_at_end - f->ksmd_at_start));
	fprintf(out, "samples %ld\n", sampler_count());
}

static long status_kb(pid_t pid, const char *key)
{
	char path[64], line[256];
	long value = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, key, strlen(key)))
			value = strtol(line + strlen(key), NULL, 10);
	if (file)
		fclose(file);
	return value;
}

static void write_vms(const struct fleet *f, FILE *out)
{
	char path[64];

	fprintf(out, "[vms]\nvm,rss_anon_kb,ksm_merging_pages,runtime_ns\n");
	for (long i = 0; i < f->plan.vms; i++) {
		char schedstat[64];

		snprintf(path, sizeof(path), "/proc/%d/ksm_merging_pages", f->vm[i].pid);
		snprintf(schedstat, sizeof(schedstat), "/proc/%d/schedstat", f->vm[i].pid);
		fprintf(out, "%ld,%ld,%ld,%ld\n", i + 1, status_kb(f->vm[i].pid, "RssAnon:"), get(path), get(schedstat));
	}
}

static uint32_t crc32(const char *data, size_t size)
{
	uint32_t crc = ~0U;

	for (size_t i = 0; i < size; i++) {
		crc ^= (unsigned char)data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320U : 0);
	}
	return ~crc;
}

/* Verify with pages merged, take everything apart, verify again. */
static bool write_verdict(const struct fleet *f, FILE *out)
{
	unsigned long long checked;
	long merged = verify(f, &checked), apart, left;

	if (!ksm_write("run", 2))
		return false;
	left = ksm_read("pages_shared") + ksm_read("pages_sharing");
	apart = verify(f, &checked);
	fprintf(out, "[verify]\nchecked_pages %llu\nbad_pages_merged %ld\nbad_pages_unmerged %ld\n", checked, merged,
		apart);
	fprintf(out, "ksm_pages_after_unmerge %ld\n", left);
	return ksm_write("run", 0) && merged >= 0 && apart >= 0;
}

/* What those who worked for others had to say, and whether what they find there is what was written. */
static bool write_orders(const struct fleet *f, FILE *out)
{
	unsigned long long checked = 0;
	struct vm_answer answer;
	long bad = 0;

	fprintf(out, "[clients]\n");
	for (long i = 0; i < f->plan.vms; i++)
		if (f->vm[i].said)
			fprintf(out, "%ld %s\n", i + 1, f->vm[i].said);
	for (long i = 0; i < f->plan.vms; i++) {
		if (!plan_works(&f->plan, i))
			continue;
		if (!vm_send(&f->vm[i], VM_VERIFY) || !vm_receive(&f->vm[i], &answer)) {
			fprintf(stderr, "fleet: VM %ld was lost\n", i + 1);
			return false;
		}
		bad += answer.bad_pages;
		checked += answer.checked_pages;
	}
	fprintf(out, "[verify]\nchecked_records %llu\nbad_records %ld\n", checked, bad);
	return true;
}

/* Three files and a socket for each VM. */
static void raise_file_limit(long vms)
{
	struct rlimit limit = { .rlim_cur = 4 * vms + 256, .rlim_max = 4 * vms + 256 };

	setrlimit(RLIMIT_NOFILE, &limit);
}

static bool measure(struct fleet *f, FILE *out)
{
	bool converge = f->plan.converge_passes > 0;
	uint64_t start;

	raise_file_limit(f->plan.vms);
	if (!find_ksmd(f) || !quiet_ksm() || !load(f, false))
		return false;
	if (*f->plan.rest && (!checkpoint() || !plan_read_rest(&f->plan)))
		return false;
	if (!ksm_open(&f->plan) || !prepare_ksm(f))
		return false;
	f->passes_before = ksm_read("full_scans");
	if (!weigh_vm1(f) || !gather_others(f) || !sampler_init(&f->plan, f->vm))
		return false;
	if (f->plan.ksm && f->plan.prescan_passes && !scan_flat_out(f, f->plan.prescan_passes, 0))
		return false;
	if (!set_knobs(f))
		return false;
	if (converge) {
		sampler_take_vms(0);
		start = now_ns();
		f->ksmd_at_start = task_runtime(f->ksmd);
		sampler_take(start, f->ksmd, f->vm[0].pid);
		announce(true);
		if (!scan_flat_out(f, f->plan.converge_passes, start))
			return false;
		announce(false);
		sampler_take(start, f->ksmd, f->vm[0].pid);
		f->window_ns = now_ns() - start;
		f->ksmd_at_end = task_runtime(f->ksmd);
		sampler_take_vms(f->window_ns);
	} else if (!window(f)) {
		return false;
	}
	if (!settle(f))
		return false;
	if (sampler_lost()) {
		fprintf(stderr, "fleet: no room for %ld samples: raise sample_ms or vm_sample_ms\n", sampler_lost());
		return false;
	}
	fprintf(out, "[plan]\n");
	plan_write(&f->plan, out);
	write_facts(f, out);
	settings_write(&f->plan, out);
	fprintf(out, "[samples]\n");
	sampler_write(out);
	fprintf(out, "[vm_samples]\n");
	sampler_write_vms(out);
	write_vms(f, out);
	if (f->plan.orders && f->plan.train && !write_orders(f, out))
		return false;
	return f->plan.nested ? witness_write(&f->plan, f->vm, out) : write_verdict(f, out);
}

static void end(struct fleet *f)
{
	for (long i = 0; f->vm && i < f->plan.vms; i++)
		if (f->vm[i].pid > 0)
			kill(f->vm[i].pid, SIGKILL);
	while (wait(NULL) > 0)
		;	/* the cgroup is busy until its process is gone */
	rmdir(CGROUP);
	rmdir(OTHERS);
	if (f->old_policy >= 0)
		schedule(f->ksmd, f->old_policy, &f->old_param, f->old_nice);
}

static int run(const char *path)
{
	static struct fleet fleet = { .old_policy = -1 };
	size_t size;
	char *text;
	FILE *out = open_memstream(&text, &size);
	bool ok = out && plan_read(&fleet.plan, path);

	if (ok) {
		fprintf(out, "paraksm-fleet 2\n");
		ok = measure(&fleet, out);
	}
	end(&fleet);
	if (!ok || fclose(out)) {
		fprintf(stderr, "fleet: failed\n");
		return 1;
	}
	fwrite(text, 1, size, stdout);
	printf("end %08x %zu\n", crc32(text, size), size);
	return fflush(stdout) ? 1 : 0;
}

/* A VM that ends by itself is told; the others stay. */
static void mourn(struct fleet *f)
{
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		for (long i = 0; i < f->plan.vms; i++)
			if (f->vm[i].pid == pid) {
				f->vm[i].pid = 0;
				printf("lost %ld\n", i + 1);
			}
}

static bool bring_up(struct fleet *f)
{
	raise_file_limit(f->plan.vms);
	return find_ksmd(f) && quiet_ksm() && load(f, true) && ksm_open(&f->plan) && prepare_ksm(f) &&
	       weigh_vm1(f) && set_knobs(f) && (!f->plan.ksm || ksm_write("run", 1));
}

static int hold(const char *path)
{
	static struct fleet fleet = { .old_policy = -1 };
	sigset_t awaited;
	bool ok;

	setvbuf(stdout, NULL, _IOLBF, 0);
	ok = plan_read(&fleet.plan, path);
	if (ok && *fleet.plan.rest) {
		fprintf(stderr, "fleet: a fleet that is held has no checkpoint\n");
		ok = false;
	}
	ok = ok && bring_up(&fleet);
	if (ok) {
		/* blocked from here on, not before: the VMs would inherit it */
		sigemptyset(&awaited);
		sigaddset(&awaited, SIGCHLD);
		sigaddset(&awaited, SIGTERM);
		sigprocmask(SIG_BLOCK, &awaited, NULL);
		printf("up\n");
		do
			mourn(&fleet);	/* at first for those that ended before the signal was blocked */
		while (sigwaitinfo(&awaited, NULL) != SIGTERM);
		ok = ksm_write("run", 2) && ksm_write("run", 0);
	}
	end(&fleet);
	if (!ok)
		fprintf(stderr, "fleet: failed\n");
	return !ok;
}

/* From outside, of VMs that another fleet program holds; they go on as if nothing had been. */
static int shares(char **word, long vms)
{
	pid_t *pid = calloc(vms, sizeof(*pid));
	bool ok = pid;

	for (long i = 0; ok && i < vms; i++)
		pid[i] = strtol(word[i], NULL, 10);
	for (long i = 0; ok && i < vms; i++)
		if (pid[i] < 2 || kill(pid[i], SIGSTOP)) {
			fprintf(stderr, "fleet: process %s: %m\n", word[i]);
			ok = false;
		}
	ok = ok && pagestat(pid, vms, "now", stdout);
	for (long i = 0; pid && i < vms; i++)
		if (pid[i] > 1)
			kill(pid[i], SIGCONT);
	free(pid);
	return ok && !fflush(stdout) ? 0 : 1;
}

static int dump(const char *path, long vm)
{
	static uint64_t page[PAGE_WORDS];
	enum page_class class_;
	struct plan plan;
	void *dataset;

	if (!plan_read(&plan, path))
		return 1;
	for (long i = 0; i < plan_pages(&plan); i++) {
		uint64_t key = page_key(&plan, vm, i, 0, &class_);

		page_fill(&plan, page, key, class_);
		fwrite(page, 1, PAGE, stdout);
	}
	if (plan.dataset_rows) {
		struct susy_row *rows = calloc(plan.dataset_rows, sizeof(*rows));

		dataset = calloc(1, svr_bytes(plan.dataset_rows));
		if (!rows || !dataset)
			return 1;
		for (long r = 0; r < plan.dataset_rows; r++)
			susy_generate(plan.seed, r, &rows[r]);
		svr_place(rows, plan.dataset_rows, dataset);
		fwrite(dataset, 1, svr_bytes(plan.dataset_rows), stdout);
	}
	return fflush(stdout) ? 1 : 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "run"))
		return run(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "hold"))
		return hold(argv[2]);
	if (argc > 2 && !strcmp(argv[1], "shares"))
		return shares(argv + 2, argc - 2);
	if (argc == 4 && !strcmp(argv[1], "dump"))
		return dump(argv[2], strtol(argv[3], NULL, 10));
	fprintf(stderr, "usage: fleet run PLAN | fleet hold PLAN | fleet shares PID... | fleet dump PLAN VM\n");
	return 2;
}
