// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vmm --kernel VMLINUX [--relocs VMLINUX.RELOCS] [--initramfs CPIO] --memory MIB [--seed N] [--tap IF [--bridge IF]]
 *     [--name NAME] [--words "kernel command line"]
 *
 * Standard input and output are the guest's /dev/hvc0. The VM ends with its standard input, with a signal, or when the
 * guest resets; exit status 0 only in the first case. SIGUSR1: say where the guest is.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "vmm.h"

static struct vm vm = { .lock = PTHREAD_MUTEX_INITIALIZER, .options.name = "vm", .options.words = "" };
static struct device console, net;

void die(const char *format, ...)
{
	va_list list;

	fprintf(stderr, "%s: vmm: ", vm.options.name);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
	_exit(1);
}

void *guest_memory(const struct vm *v, uint64_t address, uint64_t size)
{
	uint64_t low = v->options.memory < GAP_START ? v->options.memory : GAP_START;
	uint64_t high = v->options.memory - low;

	if (address < low && size <= low - address)
		return v->memory + address;
	if (address >= GAP_END && address - GAP_END < high && size <= high - (address - GAP_END))
		return v->memory + low + (address - GAP_END);
	return NULL;
}

/* An edge: the line goes up and down. */
void interrupt(const struct vm *v, int irq)
{
	struct kvm_irq_level line = { .irq = irq, .level = 1 };

	if (ioctl(v->fd, KVM_IRQ_LINE, &line))
		die("KVM_IRQ_LINE: %m");
	line.level = 0;
	ioctl(v->fd, KVM_IRQ_LINE, &line);
}

static void add_memory(uint32_t slot, uint64_t address, uint64_t offset, uint64_t size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .guest_phys_addr = address, .memory_size = size, .userspace_addr = (uintptr_t)vm.memory + offset,
	};

	if (size && ioctl(vm.fd, KVM_SET_USER_MEMORY_REGION, &region))
		die("KVM_SET_USER_MEMORY_REGION: %m");
}

static void make_memory(void)
{
	uint64_t size = vm.options.memory, low = size < GAP_START ? size : GAP_START;

	vm.memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (vm.memory == MAP_FAILED)
		die("%llu MiB of memory: %m", (unsigned long long)size >> 20);
	/* as QEMU does with its default, mem-merge=on; a kernel without KSM says EINVAL, and nobody merges */
	if (madvise(vm.memory, size, MADV_MERGEABLE) && errno != EINVAL)
		die("MADV_MERGEABLE: %m");
	add_memory(0, 0, 0, low);
	add_memory(1, GAP_END, low, size - low);
}

static void make_vm(void)
{
	uint64_t identity_map = 0xfffbc000;

	vm.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm.kvm < 0)
		die("/dev/kvm: %m");
	if (ioctl(vm.kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		die("/dev/kvm speaks another version");
	vm.fd = ioctl(vm.kvm, KVM_CREATE_VM, 0);
	if (vm.fd < 0)
		die("KVM_CREATE_VM: %m");
	if (ioctl(vm.fd, KVM_SET_TSS_ADDR, identity_map + 0x1000) ||
	    ioctl(vm.fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) || ioctl(vm.fd, KVM_CREATE_IRQCHIP, 0))
		die("KVM_CREATE_IRQCHIP: %m");
	make_memory();
	vm.vcpu = ioctl(vm.fd, KVM_CREATE_VCPU, 0);
	if (vm.vcpu < 0)
		die("KVM_CREATE_VCPU: %m");
	/*
	 * KVM gives a new VM the rate of the TSC that it found when it was loaded. If the host's kernel has found a
	 * higher one since, KVM refuses its own wish, without TSC scaling, and leaves the VM a TSC that stands still:
	 * no timer ever fires. Zero means the rate that the host has now.
	 */
	if (ioctl(vm.vcpu, KVM_SET_TSC_KHZ, 0))
		die("KVM_SET_TSC_KHZ: %m");
}

static struct device *device_at(uint64_t address)
{
	if (address - CONSOLE_BASE < DEVICE_SIZE)
		return &console;
	if (vm.options.tap && address - NET_BASE < DEVICE_SIZE)
		return &net;
	return NULL;
}

static void mmio(struct kvm_run *run)
{
	struct device *device = device_at(run->mmio.phys_addr);
	uint32_t value = 0;

	if (!device) {
		if (!run->mmio.is_write)
			memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
		return;
	}
	pthread_mutex_lock(&vm.lock);
	if (run->mmio.is_write) {
		memcpy(&value, run->mmio.data, run->mmio.len < 4 ? run->mmio.len : 4);
		device_write(device, run->mmio.phys_addr - device->base, value);
	} else {
		value = device_read(device, run->mmio.phys_addr - device->base, run->mmio.len);
		memcpy(run->mmio.data, &value, sizeof(value));
	}
	pthread_mutex_unlock(&vm.lock);
}

static void port(struct kvm_run *run)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	bool serial = run->io.port >= SERIAL_PORT && run->io.port < SERIAL_PORT + 8;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			if (serial)
				serial_write(&vm, run->io.port - SERIAL_PORT, *data);
			continue;
		}
		memset(data, 0xff, run->io.size);
		if (serial)
			*data = serial_read(run->io.port - SERIAL_PORT);
	}
}

static volatile sig_atomic_t asked;
static pthread_t vcpu;

static void ask(int signal)
{
	asked = 1;
	if (!pthread_equal(pthread_self(), vcpu))
		pthread_kill(vcpu, signal);
}

/* SIGUSR1: where the guest is. Words on its stack that may be return addresses are for System.map, less the shift. */
static void tell_where(void)
{
	struct kvm_regs regs;

	asked = 0;
	if (ioctl(vm.vcpu, KVM_GET_REGS, &regs))
		return;
	fprintf(stderr, "%s: vmm: at %llx, flags %llx, kernel moved by %llx, stack %llx:", vm.options.name, regs.rip, regs.rflags,
		(unsigned long long)vm.shift, regs.rsp);
	for (uint64_t at = regs.rsp & ~7ULL, end = at + 2048; at < end; at += 8) {
		struct kvm_translation page = { .linear_address = at };
		const uint64_t *word;

		if (ioctl(vm.vcpu, KVM_TRANSLATE, &page) || !page.valid)
			break;
		word = guest_memory(&vm, page.physical_address, 8);
		if (word && *word >> 30 == 0x3fffffffeULL)	/* the GiB of the kernel's image */
			fprintf(stderr, " %llx", (unsigned long long)*word);
	}
	fputc('\n', stderr);
}

static void run_vcpu(void)
{
	size_t size = ioctl(vm.kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vm.vcpu, 0);

	if (run == MAP_FAILED)
		die("the vCPU's page: %m");
	for (;;) {
		if (ioctl(vm.vcpu, KVM_RUN, 0) && errno != EINTR && errno != EAGAIN)
			die("KVM_RUN: %m");
		if (asked)
			tell_where();
		switch (run->exit_reason) {
		case KVM_EXIT_IO:
			port(run);
			break;
		case KVM_EXIT_MMIO:
			mmio(run);
			break;
		case KVM_EXIT_INTR:
		case KVM_EXIT_UNKNOWN:
			break;
		case KVM_EXIT_SHUTDOWN:
			die("the guest reset");
		case KVM_EXIT_FAIL_ENTRY:
			die("the processor cannot be entered: %llx",
			    (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		case KVM_EXIT_INTERNAL_ERROR:
			die("KVM cannot emulate: error %u", run->internal.suberror);
		default:
			die("unknown exit %u", run->exit_reason);
		}
	}
}

/* What arrives for the guest, as long as it has room for it. */
static void *serve_files(void *unused)
{
	uint64_t count;

	(void)unused;
	for (;;) {
		struct pollfd p[3] = { { .fd = console.wake, .events = POLLIN }, { .fd = -1 }, { .fd = -1 } };

		pthread_mutex_lock(&vm.lock);
		if (can_receive(&console))
			p[1] = (struct pollfd) { .fd = 0, .events = POLLIN };
		if (vm.options.tap && can_receive(&net))
			p[2] = (struct pollfd) { .fd = net_fd(), .events = POLLIN };
		pthread_mutex_unlock(&vm.lock);
		if (poll(p, 3, -1) < 0) {
			if (errno == EINTR)
				continue;
			die("poll: %m");
		}
		if (p[0].revents && read(console.wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
			die("eventfd: %m");
		pthread_mutex_lock(&vm.lock);
		if (p[1].revents && !console_receive(&console))
			exit(0);
		if (p[2].revents)
			net_receive(&net);
		pthread_mutex_unlock(&vm.lock);
	}
}

static uint64_t number(const char *option, const char *text)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno || end == text || *end)
		die("--%s %s: not a number", option, text);
	return value;
}

static void read_options(int argc, char **argv)
{
	static const struct option known[] = {
		{ "kernel", required_argument, NULL, 'k' }, { "relocs", required_argument, NULL, 'r' },
		{ "initramfs", required_argument, NULL, 'i' }, { "memory", required_argument, NULL, 'm' },
		{ "seed", required_argument, NULL, 's' }, { "tap", required_argument, NULL, 't' },
		{ "bridge", required_argument, NULL, 'b' }, { "name", required_argument, NULL, 'n' }, { "words", required_argument, NULL, 'w' }, { 0 },
	};
	struct options *o = &vm.options;
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (c) {
		case 'k': o->kernel = optarg; break;
		case 'r': o->relocs = optarg; break;
		case 'i': o->initramfs = optarg; break;
		case 'm': o->memory = number("memory", optarg) << 20; break;
		case 's': o->seed = number("seed", optarg); break;
		case 't': o->tap = optarg; break;
		case 'b': o->bridge = optarg; break;
		case 'n': o->name = optarg; break;
		case 'w': o->words = optarg; break;
		default: exit(2);
		}
	}
	if (optind != argc || !o->kernel || o->memory < 8ULL << 20)
		die("needs --kernel and --memory of at least 8 (MiB); see the head of main.c");
}

int main(int argc, char **argv)
{
	static char words[4096];
	pthread_t files;

	read_options(argc, argv);
	prctl(PR_SET_NAME, vm.options.name);	/* in lists of tasks it is its VM, with all its threads */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	make_vm();
	console_init(&vm, &console);
	if (vm.options.tap)
		net_init(&vm, &net);
	console.wake = net.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	snprintf(words, sizeof(words), "virtio_mmio.device=4K@0x%llx:%d%s %s", CONSOLE_BASE, CONSOLE_IRQ,
		 vm.options.tap ? " virtio_mmio.device=4K@0xd0001000:6" : "", vm.options.words);
	vm.options.words = words;
	write_mptable(&vm);
	cpu_init(&vm, load_linux(&vm));
	if (pthread_create(&files, NULL, serve_files, NULL))
		die("no thread: %m");
	vcpu = pthread_self();
	signal(SIGUSR1, ask);
	run_vcpu();	/* here, so that what the kernel counts for the process is the vCPU's time */
}
