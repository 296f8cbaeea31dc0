// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Somebody who turns all knobs of KSM while it runs, stops and starts it, takes everything apart, and moves the
 * machine's memory about. What is refused (a backend that is not there, say) is counted and no failure.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storm.h"

#define DEBUG "/sys/module/ksm_offload_debug/parameters/"
#define MEMORY "/sys/devices/system/memory/"

/* How a device is used; what it is used for at all; how it fails. */
static const struct knob {
	const char *path, *values;
} work[] = {
	{ KSM "offload_batch_size", "2,3,16,64,255,256,1024" },
	{ KSM "offload_tree_levels", "1,2,3,4,5,6" },
	{ KSM "offload_wait_mode", "fixed,adaptive,poll" },
	{ KSM "offload_wait_us", "0,50,500" },
	{ KSM "offload_timeout_ms", "1,5,100" },
	{ KSM "pages_to_scan", "7,100,512,4096" },
}, knobs[] = {
	{ KSM "offload_prefix_bytes", "0,8,64,4096" },
	{ KSM "offload_min_requests", "1,1,4,64" },
	{ KSM "pages_to_scan", "1,1000" },
	{ KSM "sleep_millisecs", "0,0,0,1,5" },
	{ KSM "use_zero_pages", "0,1" },
	{ KSM "stable_node_chains_prune_millisecs", "0,0,100,2000" },
}, faults[] = {
	{ DEBUG "lie", "0,0,10,200" },
	{ DEBUG "fail", "0,0,50,500" },
	{ DEBUG "refuse", "0,0,50" },
	{ DEBUG "hang", "0,0,0,5" },
	{ DEBUG "unmappable", "0,0,50" },
	{ DEBUG "delay_us", "0,1,100" },
};

bool put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t size = strlen(text);
	bool ok = fd >= 0 && write(fd, text, size) == size;

	if (fd >= 0)
		close(fd);
	board->writes++;
	board->refused += !ok;
	return ok;
}

static void turn(struct random *random, const struct knob *knob)
{
	char value[32];

	choose(random, knob->values, value, sizeof(value));
	put(knob->path, value);
}

static void pause_a_little(struct random *random, unsigned long most_us)
{
	if (!board->stop)
		usleep(below(random, most_us));
}

static void toggle_run(struct random *random)
{
	put(KSM "run", one_in(random, 3) ? "2" : "0");
	pause_a_little(random, 30000);
	put(KSM "run", "1");
}

/* What can change only while nothing is merged. */
static void reshape(struct random *random)
{
	char value[32];

	put(KSM "run", "2");
	choose(random, opt.sharing, value, sizeof(value));
	put(KSM "max_page_sharing", value);
	put(KSM "merge_across_nodes", one_in(random, 2) ? "0" : "1");
	put(KSM "run", "1");
}

static void change_backend(struct random *random)
{
	char value[32];

	turn(random, &faults[below(random, sizeof(faults) / sizeof(faults[0]))]);
	put(DEBUG "enable", one_in(random, 3) ? "N" : "Y");
	choose(random, "auto,cpu,debug,wq0.0,wq0.0", value, sizeof(value));
	put(KSM "offload_backend", value);
}

/* A block of memory goes, with all that can be moved out of it, and comes back. */
static void take_memory(struct random *random)
{
	char path[sizeof(MEMORY) + 300];
	struct dirent *entry;
	DIR *dir = opendir(MEMORY);
	unsigned long nr = 0;

	while (dir && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, "memory", 6) && one_in(random, ++nr))
			snprintf(path, sizeof(path), MEMORY "%s/state", entry->d_name);
	if (dir)
		closedir(dir);
	if (nr && put(path, "offline")) {
		pause_a_little(random, 20000);
		if (!put(path, "online"))
			complain("%s did not come back: %m", path);
	}
}

/* Every file of KSM can be read at any time. */
static void look_at_everything(void)
{
	char path[sizeof(KSM) + 300], text[4096];
	struct dirent *entry;
	DIR *dir = opendir(KSM);

	while (dir && (entry = readdir(dir))) {
		int fd;

		snprintf(path, sizeof(path), KSM "%s", entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (entry->d_name[0] != '.' && read(fd, text, sizeof(text)) <= 0))
			complain("%s cannot be read: %m", path);
		if (fd >= 0)
			close(fd);
	}
	if (dir)
		closedir(dir);
}

void meddler(uint64_t seed)
{
	struct random random = { .state = seed };
	char what[32], mode[32];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!board->stop) {
		choose(&random, opt.toggles, what, sizeof(what));
		if (!strcmp(what, "run"))
			toggle_run(&random);
		else if (!strcmp(what, "shape"))
			reshape(&random);
		else if (!strcmp(what, "knobs"))
			turn(&random, &knobs[below(&random, sizeof(knobs) / sizeof(knobs[0]))]);
		else if (!strcmp(what, "work"))
			turn(&random, &work[below(&random, sizeof(work) / sizeof(work[0]))]);
		else if (!strcmp(what, "backend"))
			change_backend(&random);
		else if (!strcmp(what, "memory"))
			take_memory(&random);
		else if (!strcmp(what, "compact"))
			put("/proc/sys/vm/compact_memory", "1");
		else if (!strcmp(what, "look"))
			look_at_everything();
		choose(&random, opt.modes, mode, sizeof(mode));
		if (one_in(&random, 3) && !put(KSM "offload_mode", mode))
			complain("offload_mode does not take %s: %m", mode);
		pause_a_little(&random, 60000);
	}
	_exit(0);
}

/* Something of the test's own, such as taking the device away and giving it back. */
void hook(const char *script, uint64_t seed)
{
	struct random random = { .state = seed };
	int status;
	pid_t pid;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!board->stop) {
		pause_a_little(&random, 400000);
		pid = fork();
		if (!pid) {
			execl("/bin/sh", "sh", script, NULL);
			_exit(127);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			continue;
		board->writes++;
		if (status) {
			board->refused++;
			if (WIFEXITED(status) && WEXITSTATUS(status) == 99)
				complain("%s failed for good", script);
		}
	}
	_exit(0);
}
