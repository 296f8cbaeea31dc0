// SPDX-License-Identifier: GPL-2.0-or-later
/* What is asked for. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "options.h"
#include "ycsb.h"

#define MOST_RECORDS (1ULL << 40)
#define MOST_CLIENTS 4095

static const char usage[] =
"ycsb - YCSB's core workloads a to d against a Redis server, keys chosen uniformly\n"
"\n"
"  ycsb load --records N WHERE [--seed N] [--values random|keyed] [--pipeline N] [--start PROGRAM [--listen A:P]]\n"
"  ycsb run --workload a|b|c|d --records N WHERE {--operations N | --seconds S} [--target N] [--client N]\n"
"           [--seed N] [--values random|keyed] [--samples FILE]\n"
"  ycsb run --later --records N WHERE [...]\n"
"\n"
"WHERE is --server ADDRESS:PORT (numeric, IPv4) or --socket PATH.\n"
"\n"
"Says \"ready bytes=N\" when the records are there, then obeys lines on standard input:\n"
"  go      run: performs the operations; answers \"done ns=N checksum=HEX KEY=VALUE ...\";\n"
"          --workload, --operations, --seconds and --target may stand behind it, and hold from then on\n"
"  verify  reads all records back; answers \"verified pages=RECORDS bad=N\"\n"
"  quit    ends\n"
"What it cannot do ends it: \"failed CAUSE\", status 1.\n"
"\n"
"  --records N      records that are loaded; run chooses among these alone, as YCSB's uniform distribution does\n"
"  --seed N         of the group: server, loader and clients have the same (1)\n"
"  --values KIND    random: by the seed (the default); keyed: by key and field alone, equal on all servers\n"
"  --workload L     a: half reads, half updates; b: 95% reads, updates; c: reads; d: 95% reads, inserts\n"
"  --operations N   end after so many\n"
"  --seconds S      end when so much time has passed\n"
"  --target N       operations a second of this client, evenly spaced; 0 (the default): one after the other\n"
"  --client N       number of this client among those of its server, 1 to 4095 (1): each does other operations\n"
"  --pipeline N     requests under way while loading and verifying (16)\n"
"  --samples FILE   every latency: KIND FROM_SENDING_NS FROM_INTENDED_START_NS\n"
"  --later          run: --workload and --operations or --seconds come with go\n"
"  --start PROGRAM  load: run this redis-server at --socket; it ends with the loader\n"
"  --listen A:P     address and port that it opens when the records are there, not before\n"
"  --wait S         for a server that is not up yet (10)\n"
"  --timeout S      for an answer, at most 600 (60); 0: for ever\n"
"\n"
"Example: ycsb load --socket /run/redis.sock --records 1500 </dev/null\n"
"         echo go | ycsb run --workload a --records 1500 --socket /run/redis.sock --target 100 --seconds 5\n";

static double seconds(const char *option, const char *text, double most)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= 0 && value <= most))
		control_fail("%s %s: not a time from 0 to %g seconds", option, text, most);
	return value;
}

static void copy(const char *option, char *to, size_t size, const char *text)
{
	if (!*text || strlen(text) >= size)
		control_fail("%s: a name of 1 to %zu bytes is wanted", option, size - 1);
	strcpy(to, text);
}

static uint16_t address(const char *option, const char *text, char *host, size_t size)
{
	const char *colon = strrchr(text, ':');

	if (!colon || colon == text || (size_t)(colon - text) >= size)
		control_fail("%s %s is not ADDRESS:PORT (ycsb --help)", option, text);
	memset(host, 0, size);
	memcpy(host, text, (size_t)(colon - text));
	return (uint16_t)options_number(option, colon + 1, 1, UINT16_MAX);
}

/* The letters of the options that are taken here. */
static void parse(struct options *options, int argc, char **argv, const char *taken)
{
	static const struct option known[] = {
		{ "records", required_argument, NULL, 'r' }, { "seed", required_argument, NULL, 's' },
		{ "values", required_argument, NULL, 'v' }, { "workload", required_argument, NULL, 'w' },
		{ "operations", required_argument, NULL, 'o' }, { "seconds", required_argument, NULL, 'e' },
		{ "target", required_argument, NULL, 't' }, { "client", required_argument, NULL, 'c' },
		{ "pipeline", required_argument, NULL, 'p' }, { "samples", required_argument, NULL, 'f' },
		{ "wait", required_argument, NULL, 'a' }, { "timeout", required_argument, NULL, 'i' },
		{ "server", required_argument, NULL, 'h' }, { "socket", required_argument, NULL, 'u' },
		{ "later", no_argument, NULL, 'l' }, { "start", required_argument, NULL, 'g' },
		{ "listen", required_argument, NULL, 'n' },
		{ NULL, 0, NULL, 0 },
	};
	int choice, index;

	opterr = 0;
	optind = 0;		/* glibc: from the start, whatever was parsed before */
	while ((choice = getopt_long(argc, argv, ":", known, &index)) != -1) {
		char option[32];

		if (choice == '?' || choice == ':')
			options_refuse(choice, argv);
		snprintf(option, sizeof(option), "--%s", known[index].name);
		if (!strchr(taken, choice))
			control_fail("%s means nothing here (ycsb --help)", option);
		switch (choice) {
		case 'r': options->records = options_number(option, optarg, 1, MOST_RECORDS); break;
		case 's': options->seed = options_number(option, optarg, 0, UINT64_MAX); break;
		case 'o': options->operations = options_number(option, optarg, 1, 1ULL << 32); break;
		case 'e': options->seconds = seconds(option, optarg, 86400); break;
		case 't': options->target = options_number(option, optarg, 0, 1000000); break;
		case 'c': options->client = options_number(option, optarg, 1, MOST_CLIENTS); break;
		case 'p': options->pipeline = options_number(option, optarg, 1, 1000); break;
		case 'a': options->wait_seconds = seconds(option, optarg, 3600); break;
		case 'i': options->timeout_seconds = seconds(option, optarg, 600); break;
		case 'f': copy(option, options->samples, sizeof(options->samples), optarg); break;
		case 'u': copy(option, options->socket, sizeof(options->socket), optarg); break;
		case 'h': options->port = address(option, optarg, options->host, sizeof(options->host)); break;
		case 'l': options->later = true; break;
		case 'g': copy(option, options->program, sizeof(options->program), optarg); break;
		case 'n':
			options->listen_port = address(option, optarg, options->listen_host, sizeof(options->listen_host));
			break;
		case 'v':
			options->keyed = !strcmp(optarg, "keyed");
			if (!options->keyed && strcmp(optarg, "random"))
				control_fail("--values %s: there are random and keyed", optarg);
			break;
		case 'w':
			if (strlen(optarg) != 1 || *optarg < 'a' || *optarg > 'd')
				control_fail("--workload %s: there are a, b, c and d", optarg);
			options->workload = *optarg;
			break;
		}
	}
	options_end(argc, argv);
}

static void must_know_what(const struct options *options)
{
	if (!options->workload)
		control_fail("which --workload? a, b, c or d");
	if (!options->operations && !(options->seconds > 0))
		control_fail("until when? --operations or --seconds");
}

void read_order(struct options *options, char *words)
{
	char *argv[16] = { (char *)"go" };
	int argc = 1;

	for (char *word = strtok(words, " "); word; word = strtok(NULL, " ")) {
		if (argc == 15)
			control_fail("too many words behind go");
		argv[argc++] = word;
	}
	options->operations = 0;
	options->seconds = 0;
	parse(options, argc, argv, "woet");
	must_know_what(options);
}

int main(int argc, char **argv)
{
	static struct options options = {
		.seed = 1, .client = 1, .pipeline = 16, .wait_seconds = 10, .timeout_seconds = 60,
	};
	const char *command = argc > 1 ? argv[1] : "--help";
	bool is_run = !strcmp(command, "run");

	if (!strcmp(command, "--help") || !strcmp(command, "-h") || !strcmp(command, "help")) {
		fputs(usage, stdout);
		return fflush(stdout) ? 1 : 0;
	}
	if (!is_run && strcmp(command, "load"))
		control_fail("no command %s; there are load and run (ycsb --help)", command);
	parse(&options, argc - 1, argv + 1, "rsvwoetcpfaihulgn");
	if (!options.records)
		control_fail("how many --records? (ycsb --help)");
	if (!options.host[0] == !options.socket[0])
		control_fail("one of --server and --socket is wanted (ycsb --help)");
	if (options.listen_port && !options.program[0])
		control_fail("--listen is for a server of --start (ycsb --help)");
	if (options.program[0] && (is_run || !options.socket[0]))
		control_fail("--start is for load with --socket (ycsb --help)");
	if (!is_run)
		return load(&options);
	if (!options.later)
		must_know_what(&options);
	return run(&options);
}
