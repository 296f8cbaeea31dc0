// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A process that stands for a VM: one private anonymous area, advised as mergeable as QEMU advises a guest's
 * memory. It fills the area, then obeys the runner; while the window is open it rewrites its volatile pages.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fleet.h"

struct self {
	const struct plan *plan;
	long number;
	pid_t ksmd;
	uint64_t version;		/* of the volatile pages */
	uint64_t *pages;
	void *dataset;
};

static uint64_t *page_at(const struct self *vm, long i)
{
	return vm->pages + i * PAGE_WORDS;
}

static bool populate(struct self *vm, const struct susy_row *rows)
{
	size_t own = plan_pages(vm->plan) * PAGE;
	size_t size = own + svr_bytes(vm->plan->dataset_rows);
	void *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	enum page_class class_;

	if (area == MAP_FAILED || madvise(area, size, MADV_MERGEABLE)) {
		fprintf(stderr, "fleet: VM %ld: %zu bytes of mergeable memory: %m\n", vm->number + 1, size);
		return false;
	}
	madvise(area, size, MADV_NOHUGEPAGE);
	vm->pages = area;
	vm->dataset = (char *)area + own;
	for (long i = 0; i < plan_pages(vm->plan); i++) {
		uint64_t key = page_key(vm->plan, vm->number, i, 0, &class_);

		page_fill(vm->plan, page_at(vm, i), key, class_);
	}
	if (vm->plan->dataset_rows)
		svr_place(rows, vm->plan->dataset_rows, vm->dataset);
	return true;
}

static void rewrite_volatile(struct self *vm)
{
	long last = plan_pages(vm->plan);
	enum page_class class_;

	vm->version++;
	for (long i = last - vm->plan->pages_volatile; i < last; i++) {
		uint64_t key = page_key(vm->plan, vm->number, i, vm->version, &class_);

		page_fill(vm->plan, page_at(vm, i), key, class_);
	}
}

/* Merging must never be seen from inside: every byte is compared with what was written. */
static void verify(const struct self *vm, const struct susy_row *rows, struct vm_answer *answer)
{
	size_t size = svr_bytes(vm->plan->dataset_rows);
	enum page_class class_;

	for (long i = 0; i < plan_pages(vm->plan); i++) {
		uint64_t key = page_key(vm->plan, vm->number, i, vm->version, &class_);

		answer->bad_pages += !page_check(vm->plan, page_at(vm, i), key, class_);
		answer->checked_pages++;
	}
	if (size) {
		char *wanted = calloc(1, size);

		svr_place(rows, vm->plan->dataset_rows, wanted);
		for (size_t at = 0; at < size; at += PAGE) {
			answer->bad_pages += !!memcmp(wanted + at, (char *)vm->dataset + at, PAGE);
			answer->checked_pages++;
		}
		free(wanted);
	}
}

static bool answer_with(int fd, const struct vm_answer *answer)
{
	return write(fd, answer, sizeof(*answer)) == sizeof(*answer);
}

static void obey(struct self *vm, const struct susy_row *rows, int fd)
{
	bool open = false;

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		bool writes = open && vm->plan->pages_volatile;
		int n = poll(&p, 1, writes ? vm->plan->volatile_period_ms : -1);
		struct vm_answer answer = { 0 };
		char command;

		if (n == 0) {
			rewrite_volatile(vm);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (read(fd, &command, 1) != 1 || command == VM_QUIT)
			return;
		if (command == VM_GO) {
			uint64_t start = now_ns();

			open = true;
			if (vm->number || !vm->plan->train)
				continue;
			answer.checksum = svr_train(vm->dataset, vm->plan->dataset_rows, vm->plan->solver,
						    vm->plan->repeats);
			answer.ended_ns = now_ns();
			answer.nanoseconds = answer.ended_ns - start;
			answer.ksmd_ns = task_runtime(vm->ksmd);
		} else if (command == VM_STOP) {
			open = false;
		} else {
			verify(vm, rows, &answer);
		}
		if (!answer_with(fd, &answer))
			return;
	}
}

bool vm_start(struct vm *vm, const struct plan *plan, long number, const struct susy_row *rows, pid_t ksmd)
{
	struct vm_answer ready = { 0 };
	int pair[2];

	vm->plan = plan;
	vm->number = number;
	vm->ksmd = ksmd;
	if (plan->nested)
		return nested_start(vm);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return false;
	vm->fd = pair[0];
	vm->pid = fork();
	if (!vm->pid) {
		struct self self = { .plan = plan, .number = number, .ksmd = ksmd };
		char name[16];

		snprintf(name, sizeof(name), "vm%ld", number + 1);
		prctl(PR_SET_NAME, name);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		if (populate(&self, rows) && answer_with(pair[1], &ready))
			obey(&self, rows, pair[1]);
		_exit(0);
	}
	close(pair[1]);
	return vm->pid > 0;
}

bool vm_send(struct vm *vm, enum vm_command command)
{
	char byte = command;

	if (vm->child)
		return nested_send(vm, command);
	return write(vm->fd, &byte, 1) == 1;
}

bool vm_receive(struct vm *vm, struct vm_answer *answer)
{
	if (vm->child)
		return nested_receive(vm, answer);
	return read(vm->fd, answer, sizeof(*answer)) == sizeof(*answer);
}
