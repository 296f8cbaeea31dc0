// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Training data shaped like SUSY (Baldi, Sadowski, Whiteson 2014; UCI): a label and 18 features, of which the
 * first eight describe two leptons and the missing energy, and ten are computed from those.
 *
 * The generator uses no libm function whose last bit differs between libraries: only + - * / and sqrt, which
 * IEEE 754 fixes, so equal seeds give equal bytes on every machine. Values are synthetic; what matters for
 * page deduplication is kept: row width, full mantissas, equality across VMs.
 */
#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "mix64.h"
#include "susy.h"

static double uniform(uint64_t *state)
{
	*state += MIX64_STEP;
	return (double)(mix64(*state) >> 11) * 0x1p-53;
}

/* Sum of four uniforms, scaled to variance 1: bell-shaped, bounded, exact. */
static double bell(uint64_t *state)
{
	double sum = 0;

	for (int i = 0; i < 4; i++)
		sum += uniform(state);
	return (sum - 2) * 1.7320508075688772;
}

/* cos(pi * x) for |x| <= 1 by its even Chebyshev-like polynomial; 1e-6 is enough for a shape */
static double cos_pi(double x)
{
	double y = x * x;

	return 1 + y * (-4.934802 + y * (4.058712 + y * (-1.335263 + y * (0.235331 + y * (-0.025807 + y * 0.001929)))));
}

static double wrap(double turn)
{
	while (turn > 1)
		turn -= 2;
	while (turn < -1)
		turn += 2;
	return turn;
}

static double positive(double x)
{
	return x > 0 ? x : 0;
}

void susy_generate(uint64_t seed, long row, struct susy_row *out)
{
	uint64_t state = mix64(seed ^ mix64((uint64_t)row + 1));
	bool signal = uniform(&state) < 0.4576;	/* the share of signal in the published file */
	double shift = signal ? 0.35 : 0;
	double *f = out->feature;
	double pt1, pt2, met, axial;

	out->label = signal;
	pt1 = 1 + 0.5 * bell(&state) + shift;
	pt2 = 1 + 0.5 * bell(&state) + 0.5 * shift;
	met = 1 + 0.6 * bell(&state) + 1.5 * shift;
	f[0] = pt1 * pt1 * 0.7 + 0.2;			/* lepton 1: pT, eta, phi */
	f[1] = 1.1 * bell(&state);
	f[2] = 2 * uniform(&state) - 1;
	f[3] = pt2 * pt2 * 0.6 + 0.2;			/* lepton 2 */
	f[4] = 1.1 * bell(&state);
	f[5] = 2 * uniform(&state) - 1;
	f[6] = met * met * 0.6 + 0.05;			/* missing energy: magnitude, phi */
	f[7] = 2 * uniform(&state) - 1;
	axial = f[6] * cos_pi(wrap(f[7] - f[2]));
	f[8] = f[6] * sqrt(1 - 0.5 * positive(cos_pi(wrap(f[7] - f[5]))));	/* MET_rel */
	f[9] = -axial;							/* axial MET */
	f[10] = sqrt((f[0] + f[3]) * (f[0] + f[3]) + (f[1] - f[4]) * (f[1] - f[4]));	/* M_R */
	f[11] = sqrt(f[6] * (f[0] + f[3]) * 0.5);				/* M_TR_2 */
	f[12] = f[11] / (f[10] + 1e-3);					/* R */
	f[13] = positive(sqrt(f[0] * f[3]) - 0.5 * f[6]);			/* MT2 */
	f[14] = sqrt(f[10] * f[10] + f[6] * f[6]);				/* S_R */
	f[15] = 0.5 * (f[10] + f[14]) - 0.25 * f[13];				/* M_Delta_R */
	f[16] = positive(cos_pi(wrap(f[2] - f[5])) + 1) * 0.5;			/* dPhi_r_b */
	f[17] = (f[1] - f[4]) / (1 + (f[1] - f[4]) * (f[1] - f[4]));		/* cos(theta_r1) */
}

bool susy_open(struct susy_file *in, const char *path)
{
	in->path = path;
	in->row = 0;
	in->cause[0] = 0;
	in->file = fopen(path, "r");
	if (!in->file)
		snprintf(in->cause, sizeof(in->cause), "%s: %m", path);
	return in->file;
}

void susy_close(struct susy_file *in)
{
	if (in->file)
		fclose(in->file);
	in->file = NULL;
}

static bool refuse(struct susy_file *in, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool refuse(struct susy_file *in, const char *format, ...)
{
	int length = snprintf(in->cause, sizeof(in->cause), "%.300s:%ld: ", in->path, in->row + 1);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(in->cause + length, sizeof(in->cause) - length, format, arguments);
	va_end(arguments);
	return false;
}

/* A line is "label,f1,...,f18" (UCI) or "label 1:f1 ... 18:f18" (LIBSVM). */
bool susy_next(struct susy_file *in, struct susy_row *out)
{
	char line[4096], *at, *end;

	if (!fgets(line, sizeof(line), in->file)) {
		if (ferror(in->file))
			refuse(in, "%m");
		return false;
	}
	line[strcspn(line, "\r\n")] = 0;
	memset(out, 0, sizeof(*out));
	out->label = strtod(line, &at);
	if (at == line)
		return refuse(in, "no label");
	for (int i = 0; i < SUSY_FEATURES; i++) {
		int index = i;

		while (*at == ',' || isspace((unsigned char)*at))
			at++;
		if (!*at)
			break;
		if (strchr(at, ':')) {
			index = strtol(at, &end, 10) - 1;
			at = end + 1;
		}
		if (index < 0 || index >= SUSY_FEATURES)
			return refuse(in, "feature %d", index + 1);
		out->feature[index] = strtod(at, &end);
		if (end == at)
			return refuse(in, "not a number: %.20s", at);
		at = end;
	}
	in->row++;
	return true;
}

bool susy_load(const char *path, long rows, struct susy_row *out)
{
	struct susy_file in;

	if (susy_open(&in, path))
		while (in.row < rows && susy_next(&in, &out[in.row]))
			;
	susy_close(&in);
	if (in.cause[0])
		fprintf(stderr, "fleet: %s\n", in.cause);
	else if (in.row < rows)
		fprintf(stderr, "fleet: %s has %ld rows, the plan wants %ld\n", path, in.row, rows);
	return in.row == rows;
}
