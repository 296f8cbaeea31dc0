// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Support vector regression as a workload (the paper's first, section 6.1): rows shaped like SUSY are held as liblinear
 * wants them, and a run trains on them. Rows hold no pointers, so equal options give equal pages on every machine; what
 * liblinear allocates while it trains is ordinary memory.
 */
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <getopt.h>
#include <new>

#include "control.h"
#include "memory.h"
#include "options.h"
#include "svr.h"

static const long MAX_ROWS = 100000000;
static const uint64_t TRAINING_BYTES = 64;	/* a row, roughly: pointers and the solver's vectors */

static const char help[] =
	"usage: svr [OPTION]...\n"
	"Holds training data and trains on them with liblinear, as it is told on standard input:\n"
	"  go       train\n"
	"  verify   the data, page by page, against the generator or the file\n"
	"  quit\n"
	"\n"
	"  --rows N       training rows, 1 to 100000000 (default 12000); a file must have as many\n"
	"  --seed N       of the generated rows (default 1)\n"
	"  --solver N     liblinear's number: 11, 12, 13 are regression, 1, 2, 3 classification (default 12)\n"
	"  --repeats N    trainings a run, 1 to 1000000 (default 1)\n"
	"  --dataset F    SUSY as UCI or LIBSVM write it; \"-\" generates rows (default -)\n"
	"  --mergeable    advise the data as mergeable: for a process that stands for a VM\n"
	"  --dump FILE    write the data there as they lie in memory\n"
	"  --help\n"
	"\n"
	"Memory: 312 bytes a row while it waits, some 40 more while it runs.\n"
	"Example: echo go | svr --rows 2000\n";

struct task {
	long rows;
	uint64_t seed;
	int solver, repeats;
	const char *dataset, *dump;
	char *data;
	struct susy_file file;
};

static void parse(struct task *task, int argc, char **argv)
{
	static const struct option options[] = {
		{ "rows", required_argument, NULL, 'n' }, { "seed", required_argument, NULL, 'r' },
		{ "solver", required_argument, NULL, 's' }, { "repeats", required_argument, NULL, 'c' },
		{ "dataset", required_argument, NULL, 'f' }, { "mergeable", no_argument, NULL, 'm' },
		{ "dump", required_argument, NULL, 'd' }, { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (option) {
		case 'n':
			task->rows = options_number("--rows", optarg, 1, MAX_ROWS);
			break;
		case 'r':
			task->seed = options_number("--seed", optarg, 0, UINT64_MAX);
			break;
		case 's':
			task->solver = options_number("--solver", optarg, 1, 13);
			if (task->solver > 3 && task->solver < 11)
				control_fail("--solver %d: not 1, 2, 3, 11, 12 or 13", task->solver);
			break;
		case 'c':
			task->repeats = options_number("--repeats", optarg, 1, 1000000);
			break;
		case 'f':
			task->dataset = optarg;
			break;
		case 'm':
			memory_mergeable();
			break;
		case 'd':
			task->dump = optarg;
			break;
		case 'h':
			fputs(help, stdout);
			exit(0);
		default:
			options_refuse(option, argv);
		}
	}
	options_end(argc, argv);
}

static bool is_generated(const struct task *task)
{
	return !strcmp(task->dataset, "-");
}

static void open_rows(struct task *task)
{
	if (!is_generated(task) && !susy_open(&task->file, task->dataset))
		control_fail("--dataset %s", task->file.cause);
}

/* Rows come in order, each once after open_rows(). */
static void next_row(struct task *task, long r, struct susy_row *row)
{
	if (is_generated(task))
		return susy_generate(task->seed, r, row);
	if (susy_next(&task->file, row))
		return;
	if (task->file.cause[0])
		control_fail("--dataset %s", task->file.cause);
	control_fail("--dataset %s has %ld rows, --rows wants %ld", task->dataset, r, task->rows);
}

static void close_rows(struct task *task)
{
	if (!is_generated(task))
		susy_close(&task->file);
}

static size_t label_at(const struct task *task, long r)
{
	return task->rows * SVR_ROW_BYTES + r * sizeof(double);
}

static void load(struct task *task)
{
	struct susy_row row;
	char what[50];

	snprintf(what, sizeof(what), "a run with %ld rows", task->rows);
	memory_expect(svr_bytes(task->rows) + TRAINING_BYTES * task->rows, what);
	task->data = static_cast<char *>(memory_take(svr_bytes(task->rows), "the rows"));
	open_rows(task);
	for (long r = 0; r < task->rows; r++) {
		next_row(task, r, &row);
		svr_nodes(&row, task->data + r * SVR_ROW_BYTES);
		memcpy(task->data + label_at(task, r), &row.label, sizeof(row.label));
	}
	close_rows(task);
}

static void dump(const struct task *task)
{
	FILE *file;

	if (!task->dump)
		return;
	file = fopen(task->dump, "w");
	if (!file)
		control_fail("--dump %s: %m", task->dump);
	fwrite(task->data, 1, svr_bytes(task->rows), file);
	if (fclose(file))
		control_fail("--dump %s: %m", task->dump);
}

static void go(void *state, struct control_result *result)
{
	struct task *task = static_cast<struct task *>(state);

	try {
		result->checksum = svr_train(task->data, task->rows, task->solver, task->repeats);
	} catch (const std::bad_alloc &) {
		control_fail("no memory for training on %ld rows", task->rows);
	}
	control_add(result, "rows", "%ld", task->rows);
	control_add(result, "solver", "%d", task->solver);
	control_add(result, "repeats", "%d", task->repeats);
}

/* A bit a page: a row may lie in two, and a page holds rows and labels. */
struct pages {
	uint64_t count, *wrong;
};

static void compare(const struct task *task, const struct pages *pages, size_t at, const void *wanted, size_t size)
{
	const char *bytes = static_cast<const char *>(wanted);

	if (!memcmp(task->data + at, bytes, size))
		return;
	for (size_t i = 0; i < size; i++) {
		size_t page = (at + i) / MEMORY_PAGE;

		if (task->data[at + i] != bytes[i])
			pages->wrong[page / 64] |= 1ULL << page % 64;
	}
}

static void verify(void *state, struct control_verdict *verdict)
{
	struct task *task = static_cast<struct task *>(state);
	uint64_t size = svr_bytes(task->rows), count = size / MEMORY_PAGE, words = (count + 63) / 64;
	struct pages pages = { count, NULL };
	alignas(16) char nodes[SVR_ROW_BYTES];
	struct susy_row row;

	pages.wrong = static_cast<uint64_t *>(memory_take(words * sizeof(uint64_t), "the verdict"));
	open_rows(task);
	for (long r = 0; r < task->rows; r++) {
		next_row(task, r, &row);
		svr_nodes(&row, nodes);
		compare(task, &pages, r * SVR_ROW_BYTES, nodes, sizeof(nodes));
		compare(task, &pages, label_at(task, r), &row.label, sizeof(row.label));
	}
	close_rows(task);
	for (size_t at = label_at(task, task->rows); at < size; at++)
		compare(task, &pages, at, "", 1);	/* nothing lies behind the last label */
	for (uint64_t i = 0; i < words; i++)
		verdict->bad += __builtin_popcountll(pages.wrong[i]);
	verdict->pages = pages.count;
	memory_give(pages.wrong, words * sizeof(uint64_t));
}

int main(int argc, char **argv)
{
	static struct task task;
	struct workload workload = {};

	task.rows = 12000;
	task.seed = 1;
	task.solver = 12;
	task.repeats = 1;
	task.dataset = "-";
	parse(&task, argc, argv);
	load(&task);
	dump(&task);
	workload.state = &task;
	workload.bytes = svr_bytes(task.rows);
	workload.go = go;
	workload.verify = verify;
	return control_serve(&workload);
}
