// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A server of our own. It opens its port when the records are there, so a client that got a connection has the data. A
 * server that ends takes us along: nobody would hear of it otherwise, as a loader says nothing while others ask.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.h"
#include "ycsb.h"

static pid_t server;

/* Nothing but what a signal handler may do. */
static void ended(int number)
{
	static const char itself[] = "failed the server ended by itself\n", killed[] = "failed the server was killed\n";
	int status = 0;
	ssize_t n;

	(void)number;
	if (waitpid(server, &status, WNOHANG) != server)
		return;
	n = WIFSIGNALED(status) ? write(1, killed, sizeof(killed) - 1) : write(1, itself, sizeof(itself) - 1);
	_exit(n < 0 ? 2 : 1);
}

static void become(const struct options *options)
{
	int nowhere = open("/dev/null", O_RDWR);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(nowhere, 0);
	dup2(nowhere, 1);
	execl(options->program, options->program, "--port", "0", "--unixsocket", options->socket, "--save", "",
	      "--appendonly", "no", "--protected-mode", "no", "--bind",
	      options->listen_port ? options->listen_host : "127.0.0.1", (char *)NULL);
	_exit(127);
}

void server_start(const struct options *options)
{
	const struct sigaction on_end = { .sa_handler = ended, .sa_flags = SA_NOCLDSTOP | SA_RESTART };

	if (access(options->program, X_OK))
		control_fail("--start %s: %m", options->program);
	if (sigaction(SIGCHLD, &on_end, NULL))
		control_fail("signals: %m");
	server = fork();
	if (server < 0)
		control_fail("no process for the server: %m");
	if (!server)
		become(options);
}

void server_listen(struct redis *redis, const struct options *options)
{
	char port[8];

	redis_command(redis, 4);
	redis_word(redis, "CONFIG", 6);
	redis_word(redis, "SET", 3);
	redis_word(redis, "port", 4);
	redis_word(redis, port, (size_t)snprintf(port, sizeof(port), "%u", options->listen_port));
	redis_ok(redis, "CONFIG SET port");
}

void server_stop(void)
{
	signal(SIGCHLD, SIG_DFL);
	kill(server, SIGTERM);
	while (waitpid(server, NULL, 0) < 0 && errno == EINTR)
		;
}
