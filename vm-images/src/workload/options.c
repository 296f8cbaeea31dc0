// SPDX-License-Identifier: GPL-2.0-or-later
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "control.h"
#include "options.h"

uint64_t options_number(const char *option, const char *text, uint64_t least, uint64_t most)
{
	uint64_t number;
	char *end;

	errno = 0;
	number = strtoull(text, &end, 10);
	/* strtoull() itself takes signs and leading blanks */
	if (!isdigit((unsigned char)*text) || *end)
		control_fail("%s %s: not a number", option, text);
	if (errno || number < least || number > most)
		control_fail("%s %s: not from %" PRIu64 " to %" PRIu64, option, text, least, most);
	return number;
}

void options_refuse(int returned, char **argv)
{
	if (returned == ':')
		control_fail("%s needs a value; --help tells which", argv[optind - 1]);
	control_fail("no option %s; --help lists them", argv[optind - 1]);
}

void options_end(int argc, char **argv)
{
	if (optind < argc)
		control_fail("%s belongs to no option; --help lists them", argv[optind]);
}
