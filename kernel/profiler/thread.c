// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A QEMU plugin that counts what a task of the guest executes in its kernel while a window is open, block by block,
 * exactly.
 *
 *	-plugin thread.so,out=FILE,switch=ADDRESS,name=ADDRESS,first=ADDRESS,task=NAME
 *
 * FILE begins with how many windows there were and how many tasks had their turn in them, and gets a line a translation
 * block: its address, its length in instructions, and how often the task executed it. Interrupts that come while the task
 * runs are counted as its own, as the scheduler does.
 */
#include "window.h"

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

struct block {
	uint64_t address;
	uint64_t length;
	uint64_t count;
};

static const char *out, *task;
static qemu_plugin_u64 watching;
static GHashTable *blocks;

static void write_out(void)
{
	FILE *file = fopen(out, "w");
	GHashTableIter each;
	gpointer key;

	if (!file)
		refuse("cannot write the result");
	fprintf(file, "thread 1\nwindows %" PRIu64 "\nswitches %" PRIu64 "\nlost %" PRIu64 "\n", window.windows,
		window.switches, window.nameless);
	g_hash_table_iter_init(&each, blocks);
	while (g_hash_table_iter_next(&each, &key, NULL)) {
		struct block *block = key;

		if (block->count)
			fprintf(file, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", block->address, block->length, block->count);
	}
	fprintf(file, "end\n");
	if (fclose(file))
		refuse("cannot write the result");
}

static void turn(unsigned int vcpu, const char *name)
{
	qemu_plugin_u64_set(watching, vcpu, !strncmp(name, task, NAME));
}

static void on_block(unsigned int vcpu, void *data)
{
	((struct block *)data)->count++;
}

/* Blocks at one address may differ in length, and are translated again after a flush. */
static struct block *block_of(uint64_t address, uint64_t length)
{
	struct block wanted = { .address = address, .length = length };
	struct block *block = g_hash_table_lookup(blocks, &wanted);

	if (!block) {
		block = g_memdup2(&wanted, sizeof(wanted));
		g_hash_table_add(blocks, block);
	}
	return block;
}

static guint block_hash(gconstpointer key)
{
	const struct block *block = key;

	return block->address ^ block->address >> 32 ^ block->length << 20;
}

static gboolean block_equal(gconstpointer a, gconstpointer b)
{
	return !memcmp(a, b, offsetof(struct block, count));
}

static void instrument(struct qemu_plugin_tb *tb)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb);

	if (address >> 63)
		qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, on_block, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_COND_EQ,
							  watching, 1, block_of(address, qemu_plugin_tb_n_insns(tb)));
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		g_auto(GStrv) pair = g_strsplit(argv[i], "=", 2);

		if (!pair[0] || !pair[1])
			refuse("arguments are KEY=VALUE");
		if (!strcmp(pair[0], "out"))
			out = g_strdup(pair[1]);
		else if (!strcmp(pair[0], "task"))
			task = g_strdup(pair[1]);
		else if (!window_takes(pair[0], pair[1]))
			refuse("an argument is not known");
	}
	if (!out || !task)
		refuse("out and task must be given");
	blocks = g_hash_table_new(block_hash, block_equal);
	watching.score = qemu_plugin_scoreboard_new(sizeof(uint64_t));
	window.closed = write_out;
	window.turn = turn;
	window.instrument = instrument;
	window_watch(id, info);
	return 0;
}
