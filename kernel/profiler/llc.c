// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A QEMU plugin that follows every access to memory through modelled caches while a window is open.
 *
 *	-plugin llc.so,out=FILE,switch=ADDRESS,name=ADDRESS,first=ADDRESS,hole=BYTES,sets=N,ways=N,private-sets=N,
 *		private-ways=N,ksmd=MASK,vm1=MASK,other=MASK
 *
 * The guest announces the window by names: a task that calls itself "window open" opens it, "window closed" closes it.
 * name is the guest's __set_task_comm(task, name), switch its __switch_to(prev, next), first its init_task. Accesses
 * belong to the task that runs, by its name: ksmd, vm1, or any other. Interrupts that come meanwhile count as its own.
 * What runs in a VM inside the guest belongs to the thread that runs the VM.
 *
 * Lines are those of the guest's physical memory, hole bytes of which lie below its devices' addresses. What devices
 * read and write passes by, and so do accesses to devices. Outside of the window nothing is instrumented but one
 * function. The plugin takes no locks, so all processors must run in one thread.
 */
#include <glib.h>
#include <inttypes.h>
#include <qemu-plugin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llc_model.h"

#define LINE_SHIFT 6
#define LINE (1UL << LINE_SHIFT)
#define NAME 16				/* TASK_COMM_LEN */
#define TASK_MOST 16384			/* no task_struct is larger */
#define KERNEL_MAP 0xffffffff80000000ULL
#define FOUR_GIB (1ULL << 32)

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static qemu_plugin_id_t self;
static struct model model;
static const char *out;
static uint64_t at_switch, at_name, first_task, hole;
static struct qemu_plugin_register *second_argument;
static uint64_t comm;			/* where a task's name is in it; 0: not known yet */
static char *memory;			/* the guest's, in this process */
static enum model_class current;
static uint64_t instructions[MODEL_CLASSES];
static uint64_t windows, switches, lost;
static bool open, asked;
static GThread *thread;

static const char *const class_name[] = { "ksmd", "vm1", "other" };
static const char *const kind_name[] = { "fetch", "load", "store" };

static void follow(qemu_plugin_id_t id);

static void refuse(const char *why)
{
	fprintf(stderr, "llc: %s\n", why);
	exit(1);
}

static uint64_t argument(void)
{
	g_autoptr(GByteArray) value = g_byte_array_new();
	uint64_t number = 0;

	if (!second_argument || qemu_plugin_read_register(second_argument, value) != sizeof(number))
		refuse("this processor has no register rsi");
	memcpy(&number, value->data, sizeof(number));
	return number;
}

static bool peek(uint64_t address, char *bytes, size_t size)
{
	g_autoptr(GByteArray) data = g_byte_array_new();

	if (!qemu_plugin_read_memory_vaddr(address, data, size))
		return false;
	memcpy(bytes, data->data, size);
	return true;
}

/* The first task of all is called swapper, wherever in it the name is. */
static void find_comm(void)
{
	static char task[TASK_MOST];
	size_t at = 0;

	while (at < sizeof(task) && peek(first_task + at, task + at, 512))
		at += 512;
	for (size_t i = 8; i + NAME <= at && !comm; i++)
		if (!memcmp(task + i, "swapper", 7) && (!task[i + 7] || task[i + 7] == '/'))
			comm = i;
	if (!comm)
		refuse("the guest's first task has no name: is this the machine's kernel?");
}

static void write_out(void)
{
	FILE *file = fopen(out, "w");

	if (!file)
		refuse("cannot write the result");
	fprintf(file, "llc 1\nwindows %" PRIu64 "\nswitches %" PRIu64 "\nlost %" PRIu64 "\n", windows, switches, lost);
	for (int i = 0; i < MODEL_CLASSES; i++) {
		fprintf(file, "instructions %s %" PRIu64 "\n", class_name[i], instructions[i]);
		for (int k = 0; k < MODEL_KINDS; k++) {
			const struct model_counts *counts = &model.counts[i][k];

			fprintf(file, "%s %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", class_name[i],
				kind_name[k], counts->private_hits, counts->hits, counts->sequential,
				counts->scattered);
		}
	}
	fprintf(file, "end\n");
	if (fclose(file))
		refuse("cannot write the result");
}

/* A VM's kernel may have code at the same address: only the guest's own knows these words. */
static void on_name(unsigned int vcpu, void *here)
{
	char name[NAME] = "";

	if (!peek(argument(), name, sizeof(name)))
		return;
	if (!open && !strncmp(name, "window open", NAME)) {
		memory = (char *)here - (at_name - KERNEL_MAP);
		if (!comm)
			find_comm();
		current = MODEL_OTHER;
		windows++;
		open = true;
	} else if (open && !strncmp(name, "window closed", NAME)) {
		open = false;
		write_out();
	} else {
		return;
	}
	if (!asked)
		qemu_plugin_reset(self, follow);
	asked = true;
}

static void on_switch(unsigned int vcpu, void *data)
{
	char name[NAME];

	if (!open)
		return;
	switches++;
	current = MODEL_OTHER;
	if (!peek(argument() + comm, name, sizeof(name)))
		lost++;
	else if (!strncmp(name, "ksmd", NAME))
		current = MODEL_KSMD;
	else if (!strncmp(name, "vm1", NAME))
		current = MODEL_VM1;
}

static void touch(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t address, enum model_kind kind)
{
	struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, address);

	if (!where)
		lost++;
	else if (!qemu_plugin_hwaddr_is_io(where))
		model_access(&model, vcpu, current, kind, qemu_plugin_hwaddr_phys_addr(where) >> LINE_SHIFT);
}

static void on_memory(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
	enum model_kind kind = qemu_plugin_mem_is_store(info) ? MODEL_STORE : MODEL_LOAD;
	uint64_t last = address + (1UL << qemu_plugin_mem_size_shift(info)) - 1;

	if (!open)
		return;
	touch(vcpu, info, address, kind);
	if (address >> LINE_SHIFT != last >> LINE_SHIFT)
		touch(vcpu, info, last, kind);
}

/* What a block is to the caches, in a pointer: its instructions, its lines, and the first of them. */
#define CODE(line, lines, count) ((void *)((uintptr_t)(line) << 24 | (uintptr_t)(lines) << 12 | (count)))

static void on_code(unsigned int vcpu, void *data)
{
	uintptr_t code = (uintptr_t)data;
	uint64_t line = code >> 24;

	if (!open)
		return;
	instructions[current] += code & 0xfff;
	for (unsigned int left = code >> 12 & 0xfff; left; left--)
		model_access(&model, vcpu, current, MODEL_FETCH, line++);
}

static uint64_t physical(const char *here)
{
	uint64_t offset = here - memory;

	return offset < hole ? offset : offset - hole + FOUR_GIB;
}

static void watch_code(struct qemu_plugin_tb *tb)
{
	size_t count = qemu_plugin_tb_n_insns(tb), done = 0;

	while (done < count) {
		const struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, done);
		char *here = qemu_plugin_insn_haddr(insn);
		uint64_t page = qemu_plugin_insn_vaddr(insn) >> 12;
		uint64_t first, last;
		size_t from = done;

		if (!here)		/* code that lies in a device's memory */
			return;
		first = last = physical(here);
		while (done < count) {
			insn = qemu_plugin_tb_get_insn(tb, done);
			if (qemu_plugin_insn_vaddr(insn) >> 12 != page)
				break;
			last = first + (qemu_plugin_insn_vaddr(insn) - qemu_plugin_insn_vaddr(
				qemu_plugin_tb_get_insn(tb, from))) + qemu_plugin_insn_size(insn) - 1;
			done++;
		}
		/* the part of an instruction that is on the next page counts with what follows it there */
		last = MIN(last, first | 0xfff);
		qemu_plugin_register_vcpu_tb_exec_cb(tb, on_code, QEMU_PLUGIN_CB_NO_REGS,
			CODE(first >> LINE_SHIFT, (last >> LINE_SHIFT) - (first >> LINE_SHIFT) + 1, done - from));
	}
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb);
	char *here = qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(tb, 0));

	if (address == at_name && here && (!memory || here == memory + (at_name - KERNEL_MAP)))
		qemu_plugin_register_vcpu_tb_exec_cb(tb, on_name, QEMU_PLUGIN_CB_R_REGS, here);
	if (!open)
		return;
	if (address == at_switch && here == memory + (at_switch - KERNEL_MAP))
		qemu_plugin_register_vcpu_tb_exec_cb(tb, on_switch, QEMU_PLUGIN_CB_R_REGS, NULL);
	watch_code(tb);
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++)
		qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), on_memory, QEMU_PLUGIN_CB_NO_REGS,
						 QEMU_PLUGIN_MEM_RW, NULL);
}

static void on_vcpu(qemu_plugin_id_t id, unsigned int vcpu)
{
	g_autoptr(GArray) registers = qemu_plugin_get_registers();

	if (thread && thread != g_thread_self())
		refuse("processors run in several threads: -accel tcg,thread=single");
	thread = g_thread_self();
	for (guint i = 0; i < registers->len; i++) {
		qemu_plugin_reg_descriptor *each = &g_array_index(registers, qemu_plugin_reg_descriptor, i);

		if (!strcmp(each->name, "rsi"))
			second_argument = each->handle;
	}
}

/* Everything is translated anew, with or without instruments. */
static void follow(qemu_plugin_id_t id)
{
	asked = false;
	qemu_plugin_register_vcpu_init_cb(id, on_vcpu);
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	if (!*text || *end || *text == '-')
		refuse("an argument is no number");
	return value;
}

static void take(const char *key, const char *value)
{
	const struct {
		const char *key;
		uint64_t *value;
	} wide[] = {
		{ "switch", &at_switch }, { "name", &at_name }, { "first", &first_task }, { "hole", &hole },
		{ "sets", &model.sets }, { "private-sets", &model.private_sets },
	};
	const struct {
		const char *key;
		uint32_t *value;
	} narrow[] = {
		{ "ways", &model.ways }, { "private-ways", &model.private_ways }, { "ksmd", &model.mask[MODEL_KSMD] },
		{ "vm1", &model.mask[MODEL_VM1] }, { "other", &model.mask[MODEL_OTHER] },
	};

	if (!strcmp(key, "out")) {
		out = g_strdup(value);
		return;
	}
	for (size_t i = 0; i < G_N_ELEMENTS(wide); i++) {
		if (!strcmp(key, wide[i].key)) {
			*wide[i].value = number(value);
			return;
		}
	}
	for (size_t i = 0; i < G_N_ELEMENTS(narrow); i++) {
		if (!strcmp(key, narrow[i].key)) {
			if (number(value) > UINT32_MAX)
				refuse("a number of ways or a mask is too large");
			*narrow[i].value = number(value);
			return;
		}
	}
	refuse("an argument is not known");
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	self = id;
	if (!info->system_emulation || strcmp(info->target_name, "x86_64"))
		refuse("only machines of x86-64");
	model.processors = info->system.max_vcpus;
	for (int i = 0; i < argc; i++) {
		g_auto(GStrv) pair = g_strsplit(argv[i], "=", 2);

		if (!pair[0] || !pair[1])
			refuse("arguments are KEY=VALUE");
		take(pair[0], pair[1]);
	}
	if (!out || !at_switch || !at_name || !first_task || !hole)
		refuse("out, switch, name, first and hole must be given");
	if (model_fault(&model))
		refuse(model_fault(&model));
	if (!model_init(&model))
		refuse("no memory for the model");
	follow(id);
	return 0;
}
