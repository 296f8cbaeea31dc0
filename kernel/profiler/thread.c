// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A QEMU plugin that counts what one kernel thread executes, block by block, exactly.
 *
 *	-plugin thread.so,out=FILE,switch=ADDRESS,thread=ADDRESS
 *
 * switch is the guest's __switch_to(prev, next), where the second argument is the task that runs from there on. thread
 * is the function a kernel thread begins with: who gets there is the thread to watch. FILE gets a line a translation
 * block: its address, its length in instructions, and how often the thread executed it. Interrupts that come while the
 * thread runs are counted as its own, as the scheduler does.
 */
#include <glib.h>
#include <inttypes.h>
#include <qemu-plugin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

struct block {
	uint64_t address;
	uint64_t length;
	uint64_t count;
};

static const char *out;
static uint64_t at_switch, at_thread;
static struct qemu_plugin_register *second_argument;
static uint64_t current, watched;
static qemu_plugin_u64 watching;
static GHashTable *blocks;
static GMutex lock;

static void on_switch(unsigned int vcpu, void *data)
{
	g_autoptr(GByteArray) value = g_byte_array_new();

	if (second_argument && qemu_plugin_read_register(second_argument, value) == sizeof(current))
		memcpy(&current, value->data, sizeof(current));
	qemu_plugin_u64_set(watching, vcpu, watched && current == watched);
}

static void on_thread(unsigned int vcpu, void *data)
{
	watched = current;
	qemu_plugin_u64_set(watching, vcpu, watched != 0);
}

static void on_block(unsigned int vcpu, void *data)
{
	((struct block *)data)->count++;
}

/* Blocks at one address may differ in length, and are translated again after a flush. */
static struct block *block_of(uint64_t address, uint64_t length)
{
	struct block wanted = { .address = address, .length = length };
	struct block *block;

	g_mutex_lock(&lock);
	block = g_hash_table_lookup(blocks, &wanted);
	if (!block) {
		block = g_memdup2(&wanted, sizeof(wanted));
		g_hash_table_add(blocks, block);
	}
	g_mutex_unlock(&lock);
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

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb);
	struct block *block;

	if (!(address >> 63))
		return;
	block = block_of(address, qemu_plugin_tb_n_insns(tb));
	if (address == at_switch)
		qemu_plugin_register_vcpu_tb_exec_cb(tb, on_switch, QEMU_PLUGIN_CB_R_REGS, NULL);
	if (address == at_thread)
		qemu_plugin_register_vcpu_tb_exec_cb(tb, on_thread, QEMU_PLUGIN_CB_NO_REGS, NULL);
	qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, on_block, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_COND_EQ, watching,
						  1, block);
}

static void on_vcpu(qemu_plugin_id_t id, unsigned int vcpu)
{
	g_autoptr(GArray) registers = qemu_plugin_get_registers();

	for (guint i = 0; i < registers->len; i++) {
		qemu_plugin_reg_descriptor *each = &g_array_index(registers, qemu_plugin_reg_descriptor, i);

		if (!strcmp(each->name, "rsi"))
			second_argument = each->handle;
	}
}

static void on_end(qemu_plugin_id_t id, void *data)
{
	FILE *file = fopen(out, "w");
	GHashTableIter each;
	gpointer key;

	if (!file)
		return;
	g_hash_table_iter_init(&each, blocks);
	while (g_hash_table_iter_next(&each, &key, NULL)) {
		struct block *block = key;

		if (block->count)
			fprintf(file, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", block->address, block->length, block->count);
	}
	fclose(file);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		const char *value = strchr(argv[i], '=');

		if (value && g_str_has_prefix(argv[i], "out="))
			out = g_strdup(value + 1);
		else if (value && g_str_has_prefix(argv[i], "switch="))
			at_switch = strtoull(value + 1, NULL, 0);
		else if (value && g_str_has_prefix(argv[i], "thread="))
			at_thread = strtoull(value + 1, NULL, 0);
	}
	if (!out || !at_switch || !at_thread)
		return 1;
	blocks = g_hash_table_new(block_hash, block_equal);
	watching.score = qemu_plugin_scoreboard_new(sizeof(uint64_t));
	qemu_plugin_register_vcpu_init_cb(id, on_vcpu);
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	qemu_plugin_register_atexit_cb(id, on_end, NULL);
	return 0;
}
