// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A QEMU plugin that follows every access to memory through modelled caches while a window is open.
 *
 *	-plugin llc.so,out=FILE,switch=ADDRESS,name=ADDRESS,first=ADDRESS,hole=BYTES,sets=N,ways=N,private-sets=N,
 *		private-ways=N,ksmd=MASK,vm1=MASK,other=MASK
 *
 * Accesses belong to the task that runs, by its name: ksmd, vm1, or any other. Interrupts that come meanwhile count as
 * its own. What runs in a VM inside the guest belongs to the thread that runs the VM. Private caches are those of a
 * processor that ksmd and vm1 share and, for all others, of one beside it: on a host they have processors of their own.
 *
 * Lines are those of the guest's physical memory, hole bytes of which lie below its devices' addresses. What a VM inside
 * the guest takes for physical memory is not: its pages are where the guest put them, and a page that ksmd merged is one
 * page, whoever reads it. What devices read and write passes by, and so do accesses to devices. The plugin takes no
 * locks, so all processors must run in one thread.
 */
#include "llc_model.h"
#include "window.h"

#define LINE_SHIFT 6
#define LINE (1UL << LINE_SHIFT)
#define FOUR_GIB (1ULL << 32)

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static struct model model;
static const char *out;
static uint64_t hole;
static enum model_class *current;	/* by processor */
static uint64_t instructions[MODEL_CLASSES];
static uint64_t lost;

static const char *const class_name[] = { "ksmd", "vm1", "other" };
static const char *const kind_name[] = { "fetch", "load", "store" };

static void write_out(void)
{
	FILE *file = fopen(out, "w");

	if (!file)
		refuse("cannot write the result");
	fprintf(file, "llc 1\nwindows %" PRIu64 "\nswitches %" PRIu64 "\nlost %" PRIu64 "\n",
		window.windows, window.switches, lost + window.nameless);
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

static void turn(unsigned int vcpu, const char *name)
{
	current[vcpu] = !strncmp(name, class_name[MODEL_KSMD], NAME) ? MODEL_KSMD :
			!strncmp(name, class_name[MODEL_VM1], NAME) ? MODEL_VM1 : MODEL_OTHER;
}

static void reach(unsigned int vcpu, enum model_kind kind, uint64_t line)
{
	model_access(&model, 2 * vcpu + (current[vcpu] == MODEL_OTHER), current[vcpu], kind, line);
}

static void touch(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t address, enum model_kind kind)
{
	struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, address);

	if (!where)
		lost++;
	else if (!qemu_plugin_hwaddr_is_io(where))
		reach(vcpu, kind, qemu_plugin_hwaddr_phys_addr(where) >> LINE_SHIFT);
}

static void on_memory(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
	enum model_kind kind = qemu_plugin_mem_is_store(info) ? MODEL_STORE : MODEL_LOAD;
	uint64_t last = address + (1UL << qemu_plugin_mem_size_shift(info)) - 1;

	if (!window.open)
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

	if (!window.open)
		return;
	instructions[current[vcpu]] += code & 0xfff;
	for (unsigned int left = code >> 12 & 0xfff; left; left--)
		reach(vcpu, MODEL_FETCH, line++);
}

static uint64_t physical(const char *here)
{
	uint64_t offset = here - window.memory;

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

static void instrument(struct qemu_plugin_tb *tb)
{
	watch_code(tb);
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++)
		qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), on_memory, QEMU_PLUGIN_CB_NO_REGS,
						 QEMU_PLUGIN_MEM_RW, NULL);
}

static void take(const char *key, const char *value)
{
	const struct {
		const char *key;
		uint64_t *value;
	} wide[] = {
		{ "hole", &hole }, { "sets", &model.sets }, { "private-sets", &model.private_sets },
	};
	const struct {
		const char *key;
		uint32_t *value;
	} narrow[] = {
		{ "ways", &model.ways }, { "private-ways", &model.private_ways }, { "ksmd", &model.mask[MODEL_KSMD] },
		{ "vm1", &model.mask[MODEL_VM1] }, { "other", &model.mask[MODEL_OTHER] },
	};

	if (window_takes(key, value))
		return;
	if (!strcmp(key, "out")) {
		out = g_strdup(value);
		return;
	}
	for (size_t i = 0; i < G_N_ELEMENTS(wide); i++) {
		if (!strcmp(key, wide[i].key)) {
			*wide[i].value = window_number(value);
			return;
		}
	}
	for (size_t i = 0; i < G_N_ELEMENTS(narrow); i++) {
		if (!strcmp(key, narrow[i].key)) {
			if (window_number(value) > UINT32_MAX)
				refuse("a number of ways or a mask is too large");
			*narrow[i].value = window_number(value);
			return;
		}
	}
	refuse("an argument is not known");
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		g_auto(GStrv) pair = g_strsplit(argv[i], "=", 2);

		if (!pair[0] || !pair[1])
			refuse("arguments are KEY=VALUE");
		take(pair[0], pair[1]);
	}
	if (!out || !hole)
		refuse("out and hole must be given");
	model.processors = info->system_emulation ? 2 * info->system.max_vcpus : 0;
	if (model_fault(&model))
		refuse(model_fault(&model));
	if (!model_init(&model))
		refuse("no memory for the model");
	current = g_new(enum model_class, info->system.max_vcpus);
	for (int i = 0; i < info->system.max_vcpus; i++)
		current[i] = MODEL_OTHER;
	window.closed = write_out;
	window.turn = turn;
	window.instrument = instrument;
	window_watch(id, info);
	return 0;
}
