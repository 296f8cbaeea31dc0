/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Words of a workload program's command line. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The number that an option was given; control_fail() unless it is one from least to most. */
uint64_t options_number(const char *option, const char *text, uint64_t least, uint64_t most);

/* After getopt_long(), called with opterr = 0 and a leading ':', returned '?' or ':': control_fail(), with the word. */
void options_refuse(int returned, char **argv) __attribute__((noreturn));

/* control_fail() if words are left that belong to no option. */
void options_end(int argc, char **argv);

#ifdef __cplusplus
}
#endif
#endif
