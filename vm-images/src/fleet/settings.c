// SPDX-License-Identifier: GPL-2.0-or-later
/* Files of sysfs in the plan's order: work queues of an accelerator, modes and knobs of KSM. No meaning here. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "fleet.h"

/* One write a file, as sysfs wants it. */
static bool apply(const struct setting *setting)
{
	size_t size = strlen(setting->value);
	int fd = open(setting->path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, setting->value, size) == (ssize_t)size;

	if (!ok)
		fprintf(stderr, "fleet: cannot write %s to %s: %m\n", setting->value, setting->path);
	if (fd >= 0)
		close(fd);
	return ok;
}

bool settings_apply(const struct plan *plan)
{
	for (long i = 0; i < plan->settings; i++)
		if (!apply(&plan->setting[i]))
			return false;
	return true;
}

/* As they read now; "-" for a file that can only be written. */
void settings_write(const struct plan *plan, FILE *out)
{
	fprintf(out, "[settings]\n");
	for (long i = 0; i < plan->settings; i++) {
		char text[256];
		int fd = open(plan->setting[i].path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

		text[n > 0 ? n : 0] = 0;
		text[strcspn(text, "\n")] = 0;
		fprintf(out, "%s %s\n", plan->setting[i].path, n > 0 ? text : "-");
		if (fd >= 0)
			close(fd);
	}
}
