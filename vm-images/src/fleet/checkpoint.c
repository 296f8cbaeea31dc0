// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The machine stops itself: QEMU's device "guest-stop". It is saved at that very instruction, which is the same in
 * every run, and a program outside could not find.
 */
#include <fcntl.h>
#include <unistd.h>

#include "fleet.h"

#define PORT 0x506
#define PAUSE 0x01	/* what to write; also what is read, if the device is there: 0xff if nothing is */

bool checkpoint(void)
{
	unsigned char known = 0xff, request = PAUSE;
	int fd = open("/dev/port", O_RDWR | O_CLOEXEC);
	bool ok = fd >= 0 && pread(fd, &known, 1, PORT) == 1 && known == PAUSE &&
		  pwrite(fd, &request, 1, PORT) == 1;

	if (fd < 0)
		fprintf(stderr, "fleet: /dev/port: %m\n");
	else if (!ok)
		fprintf(stderr, "fleet: no device guest-stop at port 0x%x: this machine cannot be saved\n", PORT);
	if (fd >= 0)
		close(fd);
	return ok;
}
