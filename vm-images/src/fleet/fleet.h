/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A fleet of process-VMs: what its parts know of each other. */
#ifndef FLEET_H
#define FLEET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "mix64.h"
#include "susy.h"
#include "svr.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PAGE 4096UL
#define PAGE_WORDS (PAGE / sizeof(uint64_t))

#define SETTINGS 256
#define COUNTERS 32
#define COMMANDS 256

enum bystanders { BYSTANDERS_FROZEN, BYSTANDERS_DUTY, BYSTANDERS_FULL };

struct setting {
	char path[256];
	char value[128];
};

/* plan.c: what to run; every number is a "key value" line of the plan file */
struct plan {
	long seed;
	long vms;
	long nested;			/* VMs are guests of their own under KVM, not processes */
	long vm_memory_mib;		/* of each nested VM */
	long vm_kaslr;			/* their kernels lie at random addresses */
	long vm_group;			/* so many neighbours share a network; 0: none */
	long vm_boots;			/* so many of them boot at a time */
	long ballast_zero;		/* pages in each nested VM that no program of its own uses: zero, */
	long ballast_self;		/* equal within the VM, */
	long ballast_inter;		/* equal in all VMs, */
	long ballast_unique;		/* and like no other */
	long bystanders;		/* what nested VMs do in the window that the run does not wait for */
	long bystander_percent;		/* BYSTANDERS_DUTY: of a processor, all of them together */
	long pages_shared_all;		/* per VM: the same in every VM */
	long pages_shared_some;		/* per VM: the same within a group of shared_group VMs */
	long shared_group;
	long pages_zero;
	long pages_unique;
	long pages_volatile;		/* rewritten every volatile_period_ms while the window is open */
	long volatile_period_ms;
	long alike_percent;		/* of the pages that are not zero: equal up to their last 8 bytes */
	long dataset_rows;		/* training rows, the same in every VM; 0: none */
	long train;			/* VM 1 trains on them */
	long solver;			/* liblinear's number: 11, 12, 13 are SVR */
	long repeats;			/* trainings in a row; equal data make equal work in every system */
	long ksm;			/* 0: ksmd never runs */
	long pages_to_scan;
	long sleep_millisecs;
	long max_page_sharing;
	long use_zero_pages;
	long merge_across_nodes;
	long ksmd_nice;
	long ksmd_rt_priority;		/* above 0: ksmd runs under SCHED_FIFO with it */
	long vm_weight;			/* cgroup v2 cpu.weight of VM 1; 0: no cgroup */
	long prescan_passes;		/* un-timed passes before the window */
	long converge_passes;		/* instead of a window: flat out until this many passes */
	long window_ms;
	long sample_ms;
	long vm_sample_ms;		/* period of the rows of all VMs */
	char dataset[256];		/* file of the real data; "-": generate */
	long settings;			/* "sysfs PATH VALUE" lines: written in this order before anything is scanned */
	struct setting setting[SETTINGS];
	char *command[COMMANDS];	/* "vm NUMBER COMMAND" lines: the workload in a nested VM, NULL: none */
	long orders;			/* "go NUMBER WORDS" lines: who works in the window, and what it is told */
	char *order[COMMANDS];		/* without any, VM 1 works alone */
	long counters;			/* "counter NAME" lines: further files of KSM to sample where the kernel has them */
	char counter[COUNTERS][64];
	char rest[256];			/* the file with what is not known yet, to be read behind the checkpoint; or empty */
};

bool plan_read(struct plan *plan, const char *path);
bool plan_read_rest(struct plan *plan);
void plan_write(const struct plan *plan, FILE *out);
bool plan_works(const struct plan *plan, long vm);	/* it has something to do in the window, and says when it is done */
bool plan_runs(const struct plan *plan, long vm);	/* that, or it does the same over and over, and nobody waits for it */

/* content.c: what is in memory; a page is a function of (seed, class, coordinates) alone */
enum page_class { CLASS_SHARED_ALL = 1, CLASS_SHARED_SOME, CLASS_ZERO, CLASS_UNIQUE, CLASS_VOLATILE };

uint64_t page_key(const struct plan *plan, long vm, long page, uint64_t version, enum page_class *class_);
void page_fill(const struct plan *plan, uint64_t *page, uint64_t key, enum page_class class_);
bool page_check(const struct plan *plan, const uint64_t *page, uint64_t key, enum page_class class_);
long plan_pages(const struct plan *plan);

/* vm.c: one process per VM */
struct child;

struct vm_answer {
	uint64_t nanoseconds;		/* VM_GO: the training alone */
	uint64_t ended_ns;		/* VM_GO: when it ended, and what ksmd had used by then: the runner may */
	uint64_t ksmd_ns;		/* learn of it late, when ksmd does not let it run */
	uint64_t checksum;		/* VM_GO: of the model */
	uint64_t bad_pages;		/* VM_VERIFY: pages that do not hold what was written */
	uint64_t checked_pages;
};

struct vm {
	pid_t pid;
	int fd;				/* one-byte commands to it, struct vm_answer back; lines, if nested */
	struct child *child;		/* the monitor of a nested VM */
	const struct plan *plan;
	long number;			/* from 0 */
	char sent;			/* enum vm_command, or 0: none yet */
	pid_t ksmd;
	bool done;			/* its work in the window, and what came of it */
	struct vm_answer work;
	char *said;			/* nested, with orders: the whole line */
};

enum vm_command { VM_GO = 'g', VM_STOP = 's', VM_VERIFY = 'v', VM_QUIT = 'q' };

bool vm_start(struct vm *vm, const struct plan *plan, long number, const struct susy_row *rows, pid_t ksmd);
bool vm_send(struct vm *vm, enum vm_command command);
bool vm_receive(struct vm *vm, struct vm_answer *answer);

/* nested.c: real VMs */
bool nested_prepare(const struct plan *plan);
bool nested_start(struct vm *vm);
bool nested_send(struct vm *vm, enum vm_command command);
bool nested_receive(struct vm *vm, struct vm_answer *answer);
bool nested_alive(const struct vm *vm);
void nested_complain(struct vm *vm);
bool nested_ping(struct vm *vm, uint64_t *slept);

/* pagestat.c: equal pages, counted from outside */
bool pagestat(const pid_t *pid, long vms, const char *when, FILE *out);

/* witness.c: the end of a run with real VMs */
bool witness_write(const struct plan *plan, const struct vm *vm, FILE *out);

/* checkpoint.c: the machine is saved here, and goes on wherever it is loaded, as often as that is */
bool checkpoint(void);

/* ksm.c: the kernel's side */
#define KSM_COUNTERS (12 + COUNTERS)

bool ksm_open(const struct plan *plan);
int ksm_counters(void);
const char *ksm_counter_name(int counter);
bool ksm_has(int counter);
long long ksm_counter(int counter);
bool ksm_write(const char *name, long value);
long ksm_read(const char *name);
pid_t ksmd_pid(void);
uint64_t task_runtime(pid_t pid);
uint64_t idle_ns(void);
uint64_t now_ns(void);
long long number_at(int fd);

/* process.c: what the kernel says of a VM's process, from files that stay open */
struct process {
	int schedstat, stat, merging;	/* below 0: this kernel has none */
};

struct usage {
	long long merging_pages, runtime_ns, faults;
};

bool process_open(struct process *process, pid_t pid);
void process_usage(const struct process *process, struct usage *usage);

/* sampler.c: rows kept in memory until the end, so that writing them disturbs nothing */
bool sampler_init(const struct plan *plan, const struct vm *vm);
void sampler_take(uint64_t start, pid_t ksmd, pid_t app);
void sampler_take_vms(uint64_t t_ns);	/* all of them, as one moment */
void sampler_write(FILE *out);
void sampler_write_vms(FILE *out);
long sampler_count(void);
long sampler_lost(void);		/* rows for which there was no room */

/* settings.c: files of sysfs, written and read back as the plan says */
bool settings_apply(const struct plan *plan);
void settings_write(const struct plan *plan, FILE *out);

#ifdef __cplusplus
}
#endif
#endif
