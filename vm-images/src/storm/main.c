// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * storm NAME=VALUE...  use mergeable memory as hard as can be while ksmd works on it and is meddled with; then see
 *                      that it still merges what it should
 *
 * Every process knows what its pages must hold and looks all the time. Status 0 and a last line "storm: ok" if all was
 * well; otherwise the first thing that was not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storm.h"

#define MAYFLIES 16

struct options opt = {
	.seed = 1, .seconds = 10, .workers = 4, .pages = 512, .exits = 2, .patience = 100,
	.modes = "cpu,dsa,para_c,para_t", .toggles = "run,shape,work,work,knobs,backend,compact,look",
	.sharing = "2,3,16,256", .calm = "cpu,dsa,para_c,para_t",
};
struct board *board;

struct actor {
	pid_t pid;
	bool killed;
	unsigned long beat;
	uint64_t since;
};

static struct actor workers[MAX_WORKERS], mayflies[MAYFLIES];
static pid_t meddling, hooks[MAX_HOOKS];
static struct random dice;

void complain(const char *format, ...)
{
	va_list args;

	if (atomic_exchange(&board->complained, true))
		return;
	va_start(args, format);
	vsnprintf(board->complaint, sizeof(board->complaint), format, args);
	va_end(args);
}

static const struct {
	const char *name;
	long *number;
	const char **text;
} settings[] = {
	{ "seconds", &opt.seconds, NULL }, { "workers", &opt.workers, NULL }, { "pages", &opt.pages, NULL },
	{ "exits", &opt.exits, NULL }, { "patience", &opt.patience, NULL }, { "modes", NULL, &opt.modes },
	{ "toggles", NULL, &opt.toggles }, { "sharing", NULL, &opt.sharing }, { "calm", NULL, &opt.calm },
};

static bool set(char *word)
{
	char *value = strchr(word, '='), *end;

	if (!value)
		return false;
	*value++ = 0;
	if (!strcmp(word, "hook")) {
		if (opt.hooks == MAX_HOOKS)
			return false;
		opt.hook[opt.hooks++] = value;
		return true;
	}
	if (!strcmp(word, "seed") || !strcmp(word, "huge")) {
		unsigned long number = strtoul(value, &end, 0);

		if (*word == 's')
			opt.seed = number;
		else
			opt.huge = number;
		return *value && !*end;
	}
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		if (strcmp(settings[i].name, word))
			continue;
		if (settings[i].text) {
			*settings[i].text = value;
			return true;
		}
		*settings[i].number = strtol(value, &end, 0);
		return *value && !*end && *settings[i].number >= 0;
	}
	return false;
}

static void start_worker(long number)
{
	struct actor *actor = &workers[number];
	uint64_t seed = draw(&dice);

	*actor = (struct actor){ .since = now_ns(), .beat = board->beat[number] };
	actor->pid = fork();
	if (!actor->pid)
		worker(number, seed);
	board->spawned++;
}

static void start_mayfly(struct actor *actor)
{
	uint64_t seed = draw(&dice);

	*actor = (struct actor){ .since = now_ns() };
	actor->pid = fork();
	if (!actor->pid)
		mayfly(seed);
	board->spawned++;
}

static void end(struct actor *actor)
{
	if (actor->pid > 0 && !actor->killed) {
		actor->killed = true;
		kill(actor->pid, SIGKILL);
		board->killed++;
	}
}

/* Who is this that has ended, and was it to be expected? */
static void judge(pid_t pid, int status)
{
	bool ok = WIFEXITED(status) && !WEXITSTATUS(status), killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;

	for (long i = 0; i < opt.workers; i++) {
		if (workers[i].pid != pid)
			continue;
		workers[i].pid = 0;
		if (!ok && !(workers[i].killed && killed))
			complain("worker %ld ended with status %x", i, status);
		return;
	}
	for (int i = 0; i < MAYFLIES; i++) {
		if (mayflies[i].pid != pid)
			continue;
		mayflies[i].pid = 0;
		if (!ok && !(mayflies[i].killed && killed))
			complain("a short-lived process ended with status %x", status);
		return;
	}
	if (!board->stop)
		complain("a helper process ended with status %x", status);
}

static void reap_all(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		judge(pid, status);
}

static void look_after_workers(void)
{
	for (long i = 0; i < opt.workers; i++) {
		struct actor *actor = &workers[i];

		if (!actor->pid) {
			start_worker(i);
		} else if (actor->beat != board->beat[i]) {
			actor->beat = board->beat[i];
			actor->since = now_ns();
		} else if (now_ns() - actor->since > opt.patience * 1000000000ULL) {
			complain("worker %ld (pid %d) did nothing for %ld s", i, actor->pid, opt.patience);
		}
	}
}

static void storm(void)
{
	uint64_t until = now_ns() + opt.seconds * 1000000000ULL;

	meddling = fork();
	if (!meddling)
		meddler(draw(&dice));
	for (int i = 0; i < opt.hooks; i++) {
		hooks[i] = fork();
		if (!hooks[i])
			hook(opt.hook[i], mix64(opt.seed + i));
	}
	while (now_ns() < until && !board->complained) {
		look_after_workers();
		for (int i = 0; i < opt.exits && i < MAYFLIES; i++) {
			if (!mayflies[i].pid)
				start_mayfly(&mayflies[i]);
			else if (one_in(&dice, 60))
				end(&mayflies[i]);
		}
		if (opt.workers && one_in(&dice, 20))
			end(&workers[below(&dice, opt.workers)]);
		usleep(10000);
		reap_all();
	}
	board->stop = true;
}

static bool all_gone(void)
{
	int status;
	pid_t pid = waitpid(-1, &status, WNOHANG);

	if (pid > 0)
		judge(pid, status);
	return pid < 0 && errno == ECHILD;
}

/* Everybody stops by himself and looks at his memory once more. */
static void settle(void)
{
	uint64_t give_up = now_ns() + opt.patience * 1000000000ULL;

	for (int i = 0; i < MAYFLIES; i++)
		end(&mayflies[i]);
	while (!all_gone()) {
		usleep(5000);
		if (now_ns() < give_up)
			continue;
		complain("processes do not end");
		return;
	}
}

static void report(void)
{
	static const char *const name[] = {
#define X(name) #name,
		OPERATIONS(X)
#undef X
	};

	static const char *const seen[] = {
		"pages_scanned", "offload_jobs", "offload_errors", "offload_timeouts", "offload_restarts",
		"offload_duplicates", "offload_false_equal", "offload_singles",
	};

	printf("checked %lu\nbad %lu\nspawned %lu\nkilled %lu\nwrites %lu\nrefused %lu\n", board->checked, board->bad,
	       board->spawned, board->killed, board->writes, board->refused);
	for (size_t i = 0; i < sizeof(seen) / sizeof(seen[0]); i++)
		printf("ksm %s %ld\n", seen[i], ksm_read(seen[i]));
	for (int i = 0; i < OP_COUNT && opt.seconds; i++)
		printf("op %s %lu\n", name[i], board->done[i]);
	if (board->complained)
		printf("storm: FAILED: %s\n", board->complaint);
	else
		printf("storm: ok\n");
}

int main(int argc, char **argv)
{
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		return 1;
	for (int i = 1; i < argc; i++) {
		if (!set(argv[i])) {
			fprintf(stderr, "storm: %s? See vm-images/src/storm/storm.h for what can be set\n", argv[i]);
			return 2;
		}
	}
	if (opt.workers > MAX_WORKERS)
		opt.workers = MAX_WORKERS;
	dice.state = opt.seed;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (opt.seconds) {
		/* a short life is to be two passes long, and the device is to be asked */
		put(KSM "sleep_millisecs", "0");
		put(KSM "offload_prefix_bytes", "0");
		put(KSM "offload_min_requests", "1");
		put(KSM "pages_to_scan", "1000");
		put(KSM "run", "1");
		storm();
		settle();
	}
	put("/sys/module/ksm_offload_debug/parameters/enable", "N");
	put(KSM "offload_backend", "auto");
	put(KSM "offload_batch_size", "256");
	put(KSM "offload_tree_levels", "3");
	put(KSM "offload_prefix_bytes", "0");
	put(KSM "offload_min_requests", "1");
	put(KSM "offload_wait_mode", "adaptive");
	put(KSM "offload_timeout_ms", "1000");
	put(KSM "stable_node_chains_prune_millisecs", "0");
	if (!board->complained)
		calm();
	report();
	return board->complained ? 1 : 0;
}
