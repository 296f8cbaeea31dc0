/*
 * QTest testcase for the guest-stop device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "qobject/qdict.h"

#define PORT    0x506
#define PAUSE   0x01
#define MACHINE "-M q35 -nodefaults -m 16 "

static void assert_status(QTestState *qts, const char *status)
{
    QDict *response = qtest_qmp(qts, "{ 'execute': 'query-status' }");
    QDict *data = qdict_get_qdict(response, "return");

    g_assert_cmpstr(qdict_get_str(data, "status"), ==, status);
    qobject_unref(response);
}

static void cont(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    qtest_qmp_eventwait(qts, "RESUME");
    assert_status(qts, "running");
}

static void test_stop(void)
{
    QTestState *qts = qtest_init(MACHINE "-device guest-stop");

    g_assert_cmphex(qtest_inb(qts, PORT), ==, PAUSE);
    assert_status(qts, "running");
    for (int i = 0; i < 3; i++) {
        qtest_outb(qts, PORT, PAUSE);
        qtest_qmp_eventwait(qts, "STOP");
        assert_status(qts, "paused");
        cont(qts);
    }
    qtest_quit(qts);
}

static void test_unknown_bits(void)
{
    QTestState *qts = qtest_init(MACHINE "-device guest-stop");

    qtest_outb(qts, PORT, 0);
    qtest_outb(qts, PORT, 0xff & ~PAUSE);
    assert_status(qts, "running");
    qtest_outb(qts, PORT, 0xff);
    qtest_qmp_eventwait(qts, "STOP");
    assert_status(qts, "paused");
    qtest_quit(qts);
}

static void test_other_port(void)
{
    QTestState *qts = qtest_init(MACHINE "-device guest-stop,ioport=0x5a0");

    g_assert_cmphex(qtest_inb(qts, PORT), ==, 0xff);
    qtest_outb(qts, PORT, PAUSE);
    assert_status(qts, "running");
    g_assert_cmphex(qtest_inb(qts, 0x5a0), ==, PAUSE);
    qtest_outb(qts, 0x5a0, PAUSE);
    qtest_qmp_eventwait(qts, "STOP");
    qtest_quit(qts);
}

static void test_absent(void)
{
    QTestState *qts = qtest_init(MACHINE);

    g_assert_cmphex(qtest_inb(qts, PORT), ==, 0xff);
    qtest_outb(qts, PORT, PAUSE);
    assert_status(qts, "running");
    qtest_quit(qts);
}

/* What was stopped by the guest is still stopped where it is loaded. */
static void test_saved(void)
{
    g_autofree char *file = NULL;
    g_autofree char *uri = NULL;
    g_autofree char *arguments = NULL;
    int fd = g_file_open_tmp("guest-stop-XXXXXX", &file, NULL);
    QTestState *qts = qtest_init(MACHINE "-device guest-stop");

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    uri = g_strdup_printf("file:%s", file);
    qtest_writel(qts, 0x1000, 0x600dda7a);
    qtest_outb(qts, PORT, PAUSE);
    qtest_qmp_eventwait(qts, "STOP");
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate', "
                             "'arguments': { 'uri': %s } }", uri);
    while (true) {
        QDict *response = qtest_qmp(qts, "{ 'execute': 'query-migrate' }");
        const char *status = qdict_get_str(qdict_get_qdict(response, "return"),
                                           "status");
        bool completed = g_str_equal(status, "completed");

        g_assert_cmpstr(status, !=, "failed");
        qobject_unref(response);
        if (completed) {
            break;
        }
        g_usleep(1000);
    }
    qtest_quit(qts);

    arguments = g_strdup_printf(MACHINE "-device guest-stop -incoming %s", uri);
    qts = qtest_init(arguments);
    while (true) {
        QDict *response = qtest_qmp(qts, "{ 'execute': 'query-status' }");
        QDict *data = qdict_get_qdict(response, "return");
        bool loading = g_str_equal(qdict_get_str(data, "status"), "inmigrate");

        qobject_unref(response);
        if (!loading) {
            break;
        }
        g_usleep(1000);
    }
    assert_status(qts, "paused");
    cont(qts);
    g_assert_cmphex(qtest_readl(qts, 0x1000), ==, 0x600dda7a);
    qtest_outb(qts, PORT, PAUSE);
    qtest_qmp_eventwait(qts, "STOP");
    qtest_quit(qts);
    unlink(file);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/guest-stop/stop", test_stop);
    qtest_add_func("/guest-stop/unknown-bits", test_unknown_bits);
    qtest_add_func("/guest-stop/other-port", test_other_port);
    qtest_add_func("/guest-stop/absent", test_absent);
    qtest_add_func("/guest-stop/saved", test_saved);

    return g_test_run();
}
