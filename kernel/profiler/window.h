/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a plugin of QEMU knows of a Linux guest: the window that the guest announces, and the name of the task that runs.
 *
 * The guest announces the window by names: a task that calls itself "window open" opens it, "window closed" closes it.
 * Tasks are known by their names too, and nothing is learnt while the guest boots, so that a plugin works as well on a
 * machine that was saved and goes on. Outside of the window nothing is instrumented but one function.
 *
 * Arguments of the plugin: name=, switch= and first= are the addresses of the guest's __set_task_comm(task, name),
 * __switch_to(prev, next) and init_task. Its kernel must be where it was linked to be.
 */
#ifndef WINDOW_H
#define WINDOW_H

#include <glib.h>
#include <inttypes.h>
#include <qemu-plugin.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME 16				/* TASK_COMM_LEN */
#define TASK_MOST 16384			/* no task_struct is larger */
#define KERNEL_MAP 0xffffffff80000000ULL

struct window {
	/* arguments */
	uint64_t at_switch, at_name, first_task;
	/* what the plugin does when the window has closed, and when a task begins its turn in it */
	void (*closed)(void);
	void (*turn)(unsigned int vcpu, const char *name);
	/* what it instruments in the window */
	void (*instrument)(struct qemu_plugin_tb *tb);

	bool open;
	uint64_t windows, switches, nameless;
	char *memory;			/* the guest's, in this process */

	qemu_plugin_id_t self;
	struct qemu_plugin_register *second_argument;
	uint64_t comm;			/* where a task's name is in it; 0: not known yet */
	bool asked;
	GThread *thread;
};

static struct window window;

static void refuse(const char *why)
{
	fprintf(stderr, "plugin: %s\n", why);
	exit(1);
}

static uint64_t window_argument(void)
{
	g_autoptr(GByteArray) value = g_byte_array_new();
	uint64_t number = 0;

	if (!window.second_argument ||
	    qemu_plugin_read_register(window.second_argument, value) != sizeof(number))
		refuse("this processor has no register rsi");
	memcpy(&number, value->data, sizeof(number));
	return number;
}

static bool window_peek(uint64_t address, char *bytes, size_t size)
{
	g_autoptr(GByteArray) data = g_byte_array_new();

	if (!qemu_plugin_read_memory_vaddr(address, data, size))
		return false;
	memcpy(bytes, data->data, size);
	return true;
}

/* The first task of all is called swapper, wherever in it the name is. */
static void window_find_comm(void)
{
	static char task[TASK_MOST];
	size_t at = 0;

	while (at < sizeof(task) && window_peek(window.first_task + at, task + at, 512))
		at += 512;
	for (size_t i = 8; i + NAME <= at && !window.comm; i++)
		if (!memcmp(task + i, "swapper", 7) && (!task[i + 7] || task[i + 7] == '/'))
			window.comm = i;
	if (!window.comm)
		refuse("the guest's first task has no name: is this the machine's kernel?");
}

/* The guest's own code at an address, as it is seen in this process: VMs in the guest may have code there, too. */
static char *window_code(uint64_t address)
{
	return window.memory + (address - KERNEL_MAP);
}

static void window_follow(qemu_plugin_id_t id);

/* Only the guest's own kernel knows these words. */
static void window_on_name(unsigned int vcpu, void *here)
{
	char name[NAME] = "";

	if (!window_peek(window_argument(), name, sizeof(name)))
		return;
	if (!window.open && !strncmp(name, "window open", NAME)) {
		window.memory = (char *)here - (window.at_name - KERNEL_MAP);
		if (!window.comm)
			window_find_comm();
		window.windows++;
		window.open = true;
		window.turn(vcpu, name);
	} else if (window.open && !strncmp(name, "window closed", NAME)) {
		window.open = false;
		window.closed();
	} else {
		return;
	}
	if (!window.asked)
		qemu_plugin_reset(window.self, window_follow);
	window.asked = true;
}

static void window_on_switch(unsigned int vcpu, void *data)
{
	char name[NAME];

	if (!window.open)
		return;
	window.switches++;
	if (!window_peek(window_argument() + window.comm, name, sizeof(name))) {
		window.nameless++;
		*name = 0;
	}
	window.turn(vcpu, name);
}

static void window_on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb);
	char *here = qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(tb, 0));

	if (address == window.at_name && here && (!window.memory || here == window_code(address)))
		qemu_plugin_register_vcpu_tb_exec_cb(tb, window_on_name, QEMU_PLUGIN_CB_R_REGS, here);
	if (!window.open)
		return;
	if (address == window.at_switch && here == window_code(address))
		qemu_plugin_register_vcpu_tb_exec_cb(tb, window_on_switch, QEMU_PLUGIN_CB_R_REGS, NULL);
	window.instrument(tb);
}

static void window_on_vcpu(qemu_plugin_id_t id, unsigned int vcpu)
{
	g_autoptr(GArray) registers = qemu_plugin_get_registers();

	if (window.thread && window.thread != g_thread_self())
		refuse("processors run in several threads: -accel tcg,thread=single");
	window.thread = g_thread_self();
	for (guint i = 0; i < registers->len; i++) {
		qemu_plugin_reg_descriptor *each = &g_array_index(registers, qemu_plugin_reg_descriptor, i);

		if (!strcmp(each->name, "rsi"))
			window.second_argument = each->handle;
	}
}

/* Everything is translated anew, with or without instruments. */
static void window_follow(qemu_plugin_id_t id)
{
	window.asked = false;
	qemu_plugin_register_vcpu_init_cb(id, window_on_vcpu);
	qemu_plugin_register_vcpu_tb_trans_cb(id, window_on_translation);
}

static uint64_t window_number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	if (!*text || *end || *text == '-')
		refuse("an argument is no number");
	return value;
}

/* Whether the argument is one of these. */
static bool window_takes(const char *key, const char *value)
{
	uint64_t *address = !strcmp(key, "switch") ? &window.at_switch :
			    !strcmp(key, "name") ? &window.at_name :
			    !strcmp(key, "first") ? &window.first_task : NULL;

	if (address)
		*address = window_number(value);
	return address;
}

/* After the arguments were taken. */
static void window_watch(qemu_plugin_id_t id, const qemu_info_t *info)
{
	if (!info->system_emulation || strcmp(info->target_name, "x86_64"))
		refuse("only machines of x86-64");
	if (!window.at_switch || !window.at_name || !window.first_task)
		refuse("switch, name and first must be given");
	window.self = id;
	window_follow(id);
}

#endif
