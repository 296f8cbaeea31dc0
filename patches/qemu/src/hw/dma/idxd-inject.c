/*
 * Intel Data Streaming Accelerator: faults on request
 *
 * The property "inject" holds one rule: what is to happen, and to which
 * descriptors.  Batch members count as descriptors, batch descriptors do not.
 *
 *   kind[=value],nth=N | every=N [,count=M]
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "idxd-engine.h"

typedef struct IDXDInjectName {
    const char *name;
    IDXDInjectKind kind;
    bool needs_value;
    uint64_t max;               /* 0: takes no value */
} IDXDInjectName;

static const IDXDInjectName idxd_inject_names[] = {
    { "status", IDXD_INJECT_STATUS, true, IDXD_ST_CODE_MASK },
    { "page-fault", IDXD_INJECT_PAGE_FAULT, false, UINT64_MAX },
    { "lost", IDXD_INJECT_LOST, false, 0 },
    { "delay", IDXD_INJECT_DELAY, true, NANOSECONDS_PER_SECOND * 3600ull },
    { "wrong", IDXD_INJECT_WRONG, false, 0 },
    { "halt", IDXD_INJECT_HALT, false, IDXD_RESET_FLR },
    { "wq-disable", IDXD_INJECT_WQ_DISABLE, false, 0 },
};

/* The number of @word, which is NAME=NUMBER; only a decent one is taken */
static bool idxd_inject_number(const char *word, uint64_t min, uint64_t max,
                               uint64_t *value, Error **errp)
{
    const char *number = strchr(word, '=');

    if (!number || qemu_strtou64(number + 1, NULL, 0, value) < 0) {
        error_setg(errp, "inject: '%s' is not of the form NAME=NUMBER", word);
        return false;
    }
    if (*value < min || *value > max) {
        error_setg(errp, "inject: the number in '%s' is not between %" PRIu64
                   " and %" PRIu64, word, min, max);
        return false;
    }
    return true;
}

static bool idxd_inject_kind(IDXDInjected *what, const char *word,
                             Error **errp)
{
    size_t len = strcspn(word, "=");
    size_t i;

    for (i = 0; i < ARRAY_SIZE(idxd_inject_names); i++) {
        const IDXDInjectName *n = &idxd_inject_names[i];

        if (strlen(n->name) != len || strncmp(n->name, word, len)) {
            continue;
        }
        what->kind = n->kind;
        what->value = 0;
        if (!word[len]) {
            if (n->needs_value) {
                error_setg(errp, "inject: '%s' needs a value", n->name);
                return false;
            }
            return true;
        }
        if (!n->max) {
            error_setg(errp, "inject: '%s' takes no value", n->name);
            return false;
        }
        return idxd_inject_number(word, n->kind == IDXD_INJECT_STATUS, n->max,
                                  &what->value, errp);
    }

    error_setg(errp, "inject: unknown kind '%.*s'", (int)len, word);
    error_append_hint(errp, "Known are status=CODE, page-fault[=OFFSET], lost,"
                      " delay=NS, wrong, halt[=RESET], wq-disable.\n");
    return false;
}

bool idxd_inject_parse(IDXDInject *rule, const char *text, Error **errp)
{
    g_auto(GStrv) words = g_strsplit(text, ",", -1);
    IDXDInject new = { .count = UINT64_MAX };
    int i;

    if (!*text) {
        idxd_inject_clear(rule);
        return true;
    }
    if (!idxd_inject_kind(&new.what, words[0], errp)) {
        return false;
    }
    for (i = 1; words[i]; i++) {
        uint64_t *field;

        if (g_str_has_prefix(words[i], "nth=")) {
            field = &new.nth;
        } else if (g_str_has_prefix(words[i], "every=")) {
            field = &new.every;
        } else if (g_str_has_prefix(words[i], "count=")) {
            field = &new.count;
        } else {
            error_setg(errp, "inject: '%s' is none of nth=N, every=N, count=M",
                       words[i]);
            return false;
        }
        if (!idxd_inject_number(words[i], 1, UINT64_MAX, field, errp)) {
            return false;
        }
    }
    if (!new.nth == !new.every) {
        error_setg(errp, "inject: '%s' needs either nth=N or every=N", text);
        return false;
    }

    idxd_inject_clear(rule);
    *rule = new;
    rule->text = g_strdup(text);
    return true;
}

IDXDInjected idxd_inject_next(IDXDInject *rule)
{
    IDXDInjected none = { .kind = IDXD_INJECT_NONE };

    if (rule->what.kind == IDXD_INJECT_NONE) {
        return none;
    }
    rule->seen++;
    if (rule->done >= rule->count ||
        (rule->nth ? rule->seen != rule->nth : rule->seen % rule->every)) {
        return none;
    }
    rule->done++;
    return rule->what;
}

void idxd_inject_clear(IDXDInject *rule)
{
    g_free(rule->text);
    memset(rule, 0, sizeof(*rule));
}
