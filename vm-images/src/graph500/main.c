// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Graph500 as a workload (the paper's second, section 6.1): the edge list is held, and a run builds the graph from it
 * and searches it from up to 64 roots, each tree validated. What a run builds it gives back at its end, so every run
 * writes fresh memory: on a host that merges pages this is what takes merged ones apart.
 *
 * One thread, whole numbers of 64 bits, a fixed order: equal options give equal bytes in memory on every machine.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "graph.h"
#include "memory.h"
#include "mix64.h"
#include "options.h"

#define LEVELS 64	/* counted one by one; the last counts all that are deeper */
#define EDGES_PER_PAGE (MEMORY_PAGE / sizeof(struct edge))

static const char help[] =
	"usage: graph500 [OPTION]...\n"
	"Builds a Kronecker graph of the Graph500 benchmark and searches it breadth first, as it is told on standard input:\n"
	"  go       kernel 1, then a search from each root with its validation\n"
	"  verify   the edge list, page by page, against the generator\n"
	"  quit\n"
	"\n"
	"  --scale N        2^N vertices, 1 to 42 (default 14)\n"
	"  --edgefactor N   edges a vertex, 1 to 1024 (default 16)\n"
	"  --seed N         of the graph and of the choice of roots (default 1)\n"
	"  --roots N        searches a run, 1 to 64 (default 64); fewer if fewer vertices have a neighbour\n"
	"  --no-validate    believe the trees\n"
	"  --mergeable      advise the memory as mergeable: for a process that stands for a VM\n"
	"  --dump FILE      write the edge list there, and behind it at the end of a run what the run built\n"
	"  --spoil N        damage every tree so that check N of its validation, 1 to 5, must notice\n"
	"  --help\n"
	"\n"
	"Memory: 256 bytes a vertex while it waits, 552 while it runs (at 16 edges a vertex).\n"
	"Example: echo go | graph500 --scale 10\n";

struct benchmark {
	unsigned scale, roots, spoiled;
	uint64_t edge_factor, seed;
	bool believe;
	const char *dump;

	struct kronecker graph;
	struct edge *edges;
	uint64_t root[MAX_ROOTS];

	/* of a run */
	struct csr csr;
	struct tree tree;
	struct validator validator;
	uint64_t built_ns, search_ns[MAX_ROOTS], validate_ns, traversed[MAX_ROOTS];
	uint64_t reached[LEVELS];
};

static uint64_t edge_bytes(const struct benchmark *b)
{
	return b->graph.edges * sizeof(struct edge);
}

static void parse(struct benchmark *b, int argc, char **argv)
{
	static const struct option options[] = {
		{ "scale", required_argument, NULL, 's' }, { "edgefactor", required_argument, NULL, 'e' },
		{ "seed", required_argument, NULL, 'r' }, { "roots", required_argument, NULL, 'n' },
		{ "no-validate", no_argument, NULL, 'b' }, { "mergeable", no_argument, NULL, 'm' },
		{ "dump", required_argument, NULL, 'd' }, { "spoil", required_argument, NULL, 'x' },
		{ "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
	};
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (option) {
		case 's':
			b->scale = options_number("--scale", optarg, 1, MAX_SCALE);
			break;
		case 'e':
			b->edge_factor = options_number("--edgefactor", optarg, 1, MAX_EDGE_FACTOR);
			break;
		case 'r':
			b->seed = options_number("--seed", optarg, 0, UINT64_MAX);
			break;
		case 'n':
			b->roots = options_number("--roots", optarg, 1, MAX_ROOTS);
			break;
		case 'b':
			b->believe = true;
			break;
		case 'm':
			memory_mergeable();
			break;
		case 'd':
			b->dump = optarg;
			break;
		case 'x':
			b->spoiled = options_number("--spoil", optarg, 1, 5);
			break;
		case 'h':
			fputs(help, stdout);
			exit(0);
		default:
			options_refuse(option, argv);
		}
	}
	options_end(argc, argv);
	if (b->spoiled && b->believe)
		control_fail("--spoil without validation: nobody would notice");
}

static void write_array(FILE *file, const void *array, uint64_t bytes)
{
	if (array)
		fwrite(array, 1, bytes, file);
}

static void dump(const struct benchmark *b)
{
	FILE *file;

	if (!b->dump)
		return;
	file = fopen(b->dump, "w");
	if (!file)
		control_fail("--dump %s: %m", b->dump);
	write_array(file, b->edges, edge_bytes(b));
	write_array(file, b->csr.offset, (b->graph.vertices + 1) * sizeof(uint64_t));
	write_array(file, b->csr.neighbour, b->csr.entries * sizeof(uint64_t));
	write_array(file, b->tree.parent, b->graph.vertices * sizeof(int64_t));
	write_array(file, b->tree.level, b->graph.vertices * sizeof(int64_t));
	write_array(file, b->tree.queue, b->graph.vertices * sizeof(uint64_t));
	write_array(file, b->validator.depth, b->graph.vertices * sizeof(int64_t));
	if (fclose(file))
		control_fail("--dump %s: %m", b->dump);
}

static void load(struct benchmark *b)
{
	char what[100];

	kronecker_init(&b->graph, b->scale, b->edge_factor, b->seed);
	snprintf(what, sizeof(what), "a run at scale %u with %" PRIu64 " edges a vertex", b->scale, b->edge_factor);
	memory_expect(edge_bytes(b) + csr_bytes(b->graph.vertices, b->graph.edges) + tree_bytes(b->graph.vertices) +
		      validator_bytes(b->graph.vertices), what);
	b->edges = memory_take(edge_bytes(b), "the edge list");
	for (uint64_t i = 0; i < b->graph.edges; i++)
		b->edges[i] = kronecker_edge(&b->graph, i);
	b->roots = kronecker_roots(&b->graph, b->edges, b->roots, b->root);
	if (!b->roots)
		control_fail("no vertex of this graph has a neighbour: try another --seed or a larger --scale");
	dump(b);
}

static void search(struct benchmark *b, unsigned i)
{
	uint64_t start = control_now_ns(), root = b->root[i];
	char cause[200];

	tree_search(&b->tree, &b->csr, root);
	b->search_ns[i] = control_now_ns() - start;
	b->traversed[i] = b->tree.edges;
	if (b->spoiled && !spoil(&b->tree, &b->csr, b->spoiled))
		control_fail("root %" PRIu64 ": no such damage can be done to this tree", root);
	if (b->believe)
		return;
	start = control_now_ns();
	if (!validate(&b->validator, &b->tree, root, b->edges, b->graph.edges, cause, sizeof(cause)))
		control_fail("root %" PRIu64 ": %s", root, cause);
	b->validate_ns += control_now_ns() - start;
}

static void count_levels(struct benchmark *b)
{
	for (uint64_t i = 0; i < b->tree.reached; i++) {
		int64_t level = b->tree.level[b->tree.queue[i]];

		b->reached[level < LEVELS ? level : LEVELS - 1]++;
	}
}

/* Edges a second, as the specification wants them: the harmonic mean. */
static double harmonic_teps(const struct benchmark *b)
{
	double seconds_per_edge = 0;

	for (unsigned i = 0; i < b->roots; i++)
		seconds_per_edge += (double)b->search_ns[i] / 1e9 / (double)b->traversed[i];
	return seconds_per_edge > 0 ? b->roots / seconds_per_edge : 0;
}

static uint64_t sum(const uint64_t *values, unsigned count)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < count; i++)
		total += values[i];
	return total;
}

static void report(const struct benchmark *b, struct control_result *result)
{
	char levels[LEVELS * 21], *at = levels;
	unsigned deepest = LEVELS - 1;

	while (!b->reached[deepest])
		deepest--;
	for (unsigned i = 0; i <= deepest; i++)
		at += sprintf(at, "%s%" PRIu64, i ? "," : "", b->reached[i]);
	control_add(result, "vertices", "%" PRIu64, b->graph.vertices);
	control_add(result, "edges", "%" PRIu64, b->graph.edges);
	control_add(result, "roots", "%u", b->roots);
	control_add(result, "traversed", "%" PRIu64, sum(b->traversed, b->roots));
	control_add(result, "levels", "%s", levels);
	control_add(result, "build_ns", "%" PRIu64, b->built_ns);
	control_add(result, "search_ns", "%" PRIu64, sum(b->search_ns, b->roots));
	control_add(result, "validate_ns", "%" PRIu64, b->validate_ns);
	control_add(result, "teps", "%.0f", harmonic_teps(b));
	control_add(result, "peak_bytes", "%" PRIu64, memory_peak());
}

static void go(void *state, struct control_result *result)
{
	struct benchmark *b = state;
	uint64_t start = control_now_ns();

	b->validate_ns = 0;
	memset(b->reached, 0, sizeof(b->reached));
	csr_build(&b->csr, b->edges, b->graph.edges, b->graph.vertices);
	b->built_ns = control_now_ns() - start;
	tree_take(&b->tree, b->graph.vertices);
	if (!b->believe)
		validator_take(&b->validator, b->graph.vertices);
	for (unsigned i = 0; i < b->roots; i++) {
		search(b, i);
		count_levels(b);
		result->checksum = tree_digest(&b->tree, mix64(result->checksum ^ b->root[i]));
	}
	report(b, result);
}

static void rest(void *state)
{
	struct benchmark *b = state;

	dump(b);
	csr_free(&b->csr);
	tree_free(&b->tree);
	validator_free(&b->validator);
}

/* Behind the last edge there is nothing, to the end of the page. */
static bool edge_holds(const struct benchmark *b, uint64_t i)
{
	struct edge wanted = { 0, 0 };

	if (i < b->graph.edges)
		wanted = kronecker_edge(&b->graph, i);
	return b->edges[i].start == wanted.start && b->edges[i].end == wanted.end;
}

static void verify(void *state, struct control_verdict *verdict)
{
	const struct benchmark *b = state;

	for (uint64_t first = 0; first < b->graph.edges; first += EDGES_PER_PAGE) {
		bool good = true;

		for (uint64_t i = first; i < first + EDGES_PER_PAGE; i++)
			good = good && edge_holds(b, i);
		verdict->pages++;
		verdict->bad += !good;
	}
}

int main(int argc, char **argv)
{
	static struct benchmark b = { .scale = 14, .edge_factor = 16, .seed = 1, .roots = MAX_ROOTS };
	struct workload workload = { .state = &b, .go = go, .rest = rest, .verify = verify };

	parse(&b, argc, argv);
	load(&b);
	workload.bytes = edge_bytes(&b);
	return control_serve(&workload);
}
