// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A real VM: a Linux guest of its own under KVM, started by our monitor (vm-images/src/vmm). Its process 1 relays lines
 * between us and the workload in it (vm-images/src/guest).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "fleet.h"

#define MONITOR "/bin/vmm"
#define KERNEL "/vm/vmlinux"
#define RELOCS "/vm/vmlinux.relocs"
#define INITRAMFS "/vm/initramfs"
#define KVM_MINOR 232
#define TUN_MINOR 200
#define BOOT_NS (120ULL * 1000000000ULL)
#define LOAD_NS (1800ULL * 1000000000ULL)
#define PING_MS 20
#define PING_NS (10ULL * 1000000000ULL)

/* A panic or an end of the VM is a triple fault, which ends the monitor; no hardware clock, timer or keyboard to probe. */
static const char words[] = "console=ttyS0 quiet panic=-1 reboot=t tsc=reliable no_timer_check random.trust_cpu=off "
			    "clocksource=kvm-clock";

static bool interface_up(const char *name)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool ok;

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	ok = !ioctl(fd, SIOCGIFFLAGS, &request);
	request.ifr_flags |= IFF_UP;
	ok = ok && !ioctl(fd, SIOCSIFFLAGS, &request);
	close(fd);
	return ok;
}

/* One bridge for each group of VMs, as the paper's clients and their server have. */
static bool make_bridge(const char *name)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool ok = !ioctl(fd, SIOCBRADDBR, name) || errno == EEXIST;

	close(fd);
	if (ok && interface_up(name))
		return true;
	fprintf(stderr, "fleet: bridge %s: %m\n", name);
	return false;
}

static bool make_node(const char *path, int minor)
{
	if (!access(path, F_OK))
		return true;
	return !mknod(path, S_IFCHR | 0600, makedev(10, minor));
}

bool nested_prepare(const struct plan *plan)
{
	char bridge[IFNAMSIZ];

	mkdir("/dev/net", 0755);
	if (!make_node("/dev/kvm", KVM_MINOR) || !make_node("/dev/net/tun", TUN_MINOR)) {
		fprintf(stderr, "fleet: /dev: %m\n");
		return false;
	}
	for (long group = 0; plan->vm_group && group * plan->vm_group < plan->vms; group++) {
		snprintf(bridge, sizeof(bridge), "group%ld", group + 1);
		if (!make_bridge(bridge))
			return false;
	}
	return true;
}

bool nested_start(struct vm *vm)
{
	const struct plan *plan = vm->plan;
	const char *command = plan->command[vm->number];
	char text[4096], memory[32], seed[32], name[32], bridge[IFNAMSIZ], address[64] = "", ballast[160] = "";
	char *argv[24] = { (char *)MONITOR, (char *)"--kernel", (char *)KERNEL, (char *)"--initramfs", (char *)INITRAMFS,
			   (char *)"--memory", memory, (char *)"--seed", seed, (char *)"--name", name,
			   (char *)"--words", text };
	int used = 13;

	vm->child = calloc(1, sizeof(*vm->child));
	if (!vm->child)
		return false;
	snprintf(memory, sizeof(memory), "%ld", plan->vm_memory_mib);
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)mix64(mix64(plan->seed) + vm->number) >> 1);
	snprintf(name, sizeof(name), "vm%ld", vm->number + 1);
	if (plan->vm_kaslr) {
		argv[used++] = (char *)"--relocs";
		argv[used++] = (char *)RELOCS;
	}
	if (plan->vm_group) {
		snprintf(bridge, sizeof(bridge), "group%ld", vm->number / plan->vm_group + 1);
		snprintf(address, sizeof(address), "fleet.address=10.1.%ld.%ld", vm->number / plan->vm_group,
			 vm->number % plan->vm_group + 1);
		argv[used++] = (char *)"--tap";
		argv[used++] = name;
		argv[used++] = (char *)"--bridge";
		argv[used++] = bridge;
	}
	if (plan->ballast_zero || plan->ballast_self || plan->ballast_inter || plan->ballast_unique)
		snprintf(ballast, sizeof(ballast), " fleet.ballast=%ld,%ld,%ld,%ld,%ld,%ld", plan->seed, vm->number,
			 plan->ballast_zero, plan->ballast_self, plan->ballast_inter, plan->ballast_unique);
	snprintf(text, sizeof(text), "%s %s%s%s%s", words, address, ballast, command ? " -- " : "", command ? command : "");
	if (!child_start(vm->child, argv))
		return false;
	vm->pid = vm->child->pid;
	vm->fd = vm->child->fd;
	return true;
}

/* The next line if it begins so, or NULL. */
static const char *expect_line(struct vm *vm, const char *wanted, uint64_t patience)
{
	const char *line;
	enum child_state state = child_line(vm->child, &line, now_ns() + patience);

	if (state == CHILD_LINE_READ && !strncmp(line, wanted, strlen(wanted)))
		return line;
	fprintf(stderr, "fleet: VM %ld: waited for \"%s\", %.1000s\n", vm->number + 1, wanted,
		state == CHILD_GONE ? "its monitor ended" : state == CHILD_LATE ? "nothing came in time" : line);
	return NULL;
}

/* Something came from a VM that had nothing to say. */
void nested_complain(struct vm *vm)
{
	const char *line;
	enum child_state state = child_line(vm->child, &line, now_ns() + PING_NS);

	fprintf(stderr, "fleet: VM %ld: in the window, %.1000s\n", vm->number + 1,
		state == CHILD_LINE_READ ? line : "its monitor ended");
}

bool nested_ping(struct vm *vm, uint64_t *slept)
{
	const char *line;
	char ping[32];

	snprintf(ping, sizeof(ping), "ping %d", PING_MS);
	if (!child_say(vm->child, ping) || !(line = expect_line(vm, "pong ", PING_NS)))
		return false;
	*slept = strtoull(line + 5, NULL, 10);
	return true;
}

/* Up, its workload loaded, its timers alive. */
static bool wait_loaded(struct vm *vm)
{
	uint64_t slept;

	if (!expect_line(vm, "up", BOOT_NS))
		return false;
	if (vm->plan->command[vm->number] && !expect_line(vm, "ready ", LOAD_NS))
		return false;
	return nested_ping(vm, &slept);
}

/* Some run in the window, and every VM with a program can look at its memory. */
static bool takes(const struct vm *vm, enum vm_command command)
{
	if (!vm->plan->command[vm->number])
		return false;
	return command == VM_VERIFY || (command == VM_GO && plan_runs(vm->plan, vm->number));
}

bool nested_send(struct vm *vm, enum vm_command command)
{
	const char *order = vm->plan->order[vm->number];
	char go[CHILD_COMMAND];

	vm->sent = command;
	if (!takes(vm, command))
		return true;
	snprintf(go, sizeof(go), "go%s%s", order && *order ? " " : "", order ? order : "");
	return child_say(vm->child, command == VM_GO ? go : "verify");
}

static uint64_t number_of(const char *line, const char *key, int base)
{
	const char *value = line_value(line, key);

	return value ? strtoull(value, NULL, base) : 0;
}

/* Its monitor runs on. A VM that is gone must not pass for one that has nothing to say. */
bool nested_alive(const struct vm *vm)
{
	int status;

	if (!waitpid(vm->pid, &status, WNOHANG))
		return true;
	fprintf(stderr, "fleet: VM %ld was lost: its monitor ended\n", vm->number + 1);
	return false;
}

bool nested_receive(struct vm *vm, struct vm_answer *answer)
{
	const char *line;

	memset(answer, 0, sizeof(*answer));
	if (!vm->sent)
		return wait_loaded(vm);
	if (!takes(vm, vm->sent))
		return nested_alive(vm);
	if (vm->sent == VM_GO) {
		line = expect_line(vm, "done ", LOAD_NS);
		if (!line)
			return false;
		answer->ended_ns = now_ns();
		answer->ksmd_ns = task_runtime(vm->ksmd);
		answer->nanoseconds = number_of(line, "ns", 10);
		answer->checksum = number_of(line, "checksum", 16);
		if (vm->plan->orders)
			vm->said = strdup(line);
		return !vm->plan->orders || vm->said;
	}
	line = expect_line(vm, "verified ", LOAD_NS);
	if (!line)
		return false;
	answer->checked_pages = number_of(line, "pages", 10);
	answer->bad_pages = number_of(line, "bad", 10);
	return true;
}
