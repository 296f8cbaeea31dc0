/*
 * MOVDIRI, MOVDIR64B, ENQCMD and ENQCMDS in user mode: encodings, operands,
 * faults, and that an instruction that faults has stored nothing.
 *
 * Runs on any x86-64 Linux whose CPU has MOVDIRI and MOVDIR64B.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096UL
#define ALL_FLAGS 0x8d5         /* CF PF AF ZF SF OF */

static int failures, checks;
static sigjmp_buf escape;
/* volatile: written by the signal handler */
static volatile int got_signal, got_code;
/* volatile: written by the signal handler */
static void *volatile got_address;

static void check_(bool ok, const char *what, int line)
{
    checks++;
    if (!ok) {
        failures++;
        printf("not ok: line %d: %s (signal %d, code %d, address %p)\n",
               line, what, got_signal, got_code, got_address);
    }
}

#define check(condition) check_(condition, #condition, __LINE__)

static void on_signal(int number, siginfo_t *info, void *context)
{
    got_signal = number;
    got_code = info->si_code;
    got_address = info->si_addr;
    siglongjmp(escape, 1);
}

/*
 * Run one instruction with RAX = R8 = a, RDX = R10 = d and all flags set;
 * return the flags after it.  What faults is left in got_*.
 */
#define RUN(a, d, bytes) ({                                             \
    /* volatile: lives through siglongjmp() */                          \
    volatile uint64_t flags_ = 0;                                       \
    got_signal = 0; got_code = 0; got_address = NULL;                   \
    if (!sigsetjmp(escape, 1)) {                                        \
        register uint64_t r8_ asm("r8") = (uint64_t)(a);                \
        register uint64_t r10_ asm("r10") = (uint64_t)(d);              \
        uint64_t f_ = ALL_FLAGS | 2;                                    \
        asm volatile("sub $128, %%rsp; push %0; popf; "                 \
                     ".byte " bytes "; "                                \
                     "pushf; pop %0; add $128, %%rsp"                   \
                     : "+r"(f_)                                         \
                     : "a"((uint64_t)(a)), "d"((uint64_t)(d)),          \
                       "r"(r8_), "r"(r10_)                              \
                     : "memory", "cc");                                 \
        flags_ = f_ & ALL_FLAGS;                                        \
    }                                                                   \
    flags_;                                                             \
})

#define MOVDIR64B   "0x66, 0x0f, 0x38, 0xf8, 0x02"      /* rax, [rdx] */
#define ENQCMD      "0xf2, 0x0f, 0x38, 0xf8, 0x02"
#define ENQCMDS     "0xf3, 0x0f, 0x38, 0xf8, 0x02"

static bool illegal(void)
{
    return got_signal == SIGILL;
}

static bool protection(void)
{
    return got_signal == SIGSEGV && got_code == SI_KERNEL;
}

static bool page_fault(const void *address, int code)
{
    return got_signal == SIGSEGV && got_address == address && got_code == code;
}

static void *map(uintptr_t where, size_t size)
{
    void *p = mmap((void *)where, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | (where ? MAP_FIXED : 0),
                   -1, 0);

    if (p == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return p;
}

static uint8_t *dst, *src;      /* a page each, below 4 GiB */

static void prepare(void)
{
    int i;

    memset(dst, 0xee, PAGE);
    for (i = 0; i < (int)PAGE; i++) {
        src[i] = i * 7 + (i >> 8) + 1;
    }
}

static bool untouched(void)
{
    int i;

    for (i = 0; i < (int)PAGE; i++) {
        if (dst[i] != 0xee) {
            return false;
        }
    }
    return true;
}

/* The 64 bytes at @offset of dst are those at @from, and nothing else moved */
static bool moved(int offset, const uint8_t *from)
{
    bool same = !memcmp(dst + offset, from, 64);

    memset(dst + offset, 0xee, 64);
    return same && untouched();
}

static void test_movdiri(void)
{
    uint64_t *slot = (uint64_t *)dst;

    prepare();
    check(RUN(0x1122334455667788, dst, "0x48, 0x0f, 0x38, 0xf9, 0x02")
          == ALL_FLAGS && !got_signal);
    check(slot[0] == 0x1122334455667788 && slot[1] == 0xeeeeeeeeeeeeeeee);
    prepare();
    RUN(0x1122334455667788, dst, "0x0f, 0x38, 0xf9, 0x02");
    check(!got_signal && slot[0] == 0xeeeeeeee55667788);
    prepare();
    RUN(0x1122334455667788, dst + 3, "0x48, 0x0f, 0x38, 0xf9, 0x02");
    check(!got_signal && slot[0] == 0x4455667788eeeeee);
    prepare();
    RUN(1, dst, "0x66, 0x0f, 0x38, 0xf9, 0x02");
    check(illegal());
    RUN(1, dst, "0xf2, 0x0f, 0x38, 0xf9, 0x02");
    check(illegal());
    RUN(1, dst, "0xf3, 0x0f, 0x38, 0xf9, 0x02");
    check(illegal());
    RUN(1, dst, "0xf0, 0x0f, 0x38, 0xf9, 0x02");
    check(illegal());
    RUN(1, dst, "0x0f, 0x38, 0xf9, 0xc2");
    check(illegal());
    check(untouched());
}

static void test_decoding(void)
{
    prepare();
    check(RUN(dst, src, MOVDIR64B) == ALL_FLAGS && !got_signal);
    check(moved(0, src));
    RUN(dst + 64, src + 3, MOVDIR64B);
    check(!got_signal && moved(64, src + 3));
    RUN(dst, src, "0x66, 0x48, 0x0f, 0x38, 0xf8, 0x02");     /* REX.W */
    check(!got_signal && moved(0, src));
    RUN(dst, src, "0x66, 0x45, 0x0f, 0x38, 0xf8, 0x02");     /* r8, [r10] */
    check(!got_signal && moved(0, src));
    RUN(dst, src, "0x66, 0x0f, 0x38, 0xf8, 0x42, 0x11");     /* [rdx + 17] */
    check(!got_signal && moved(0, src + 17));
    RUN(dst, src - (uintptr_t)dst,                           /* [rdx + rax] */
        "0x66, 0x0f, 0x38, 0xf8, 0x04, 0x02");
    check(!got_signal && moved(0, src));
    RUN(dst, src, "0x26, 0x66, 0x0f, 0x38, 0xf8, 0x02");     /* ES: ignored */
    check(!got_signal && moved(0, src));

    RUN(dst, src, "0xf0, 0x66, 0x0f, 0x38, 0xf8, 0x02");     /* LOCK */
    check(illegal());
    RUN(dst, src, "0x66, 0x0f, 0x38, 0xf8, 0xc2");           /* mod = 3 */
    check(illegal());
    RUN(dst, src, "0x0f, 0x38, 0xf8, 0x02");                 /* no prefix */
    check(illegal());
    RUN(dst, src, "0xc4, 0xe2, 0x79, 0xf8, 0x02");           /* VEX */
    check(illegal());
    check(untouched());
}

static void test_addresses(void)
{
    /* 67h cuts both addresses to 32 bits */
    prepare();
    RUN((uintptr_t)dst | 0xdead000000000000, (uintptr_t)src | 0xbeef00000000,
        "0x67, " MOVDIR64B);
    check(!got_signal && moved(0, src));

    /* a segment override moves the source only */
    syscall(SYS_arch_prctl, ARCH_SET_GS, src + 256);
    RUN(dst, 5, "0x65, " MOVDIR64B);
    check(!got_signal && moved(0, src + 256 + 5));
    syscall(SYS_arch_prctl, ARCH_SET_GS, 0);

    /* not canonical */
    RUN(0x8000000000000000, src, MOVDIR64B);
    check(got_signal == SIGSEGV);
    RUN(dst, 0x8000000000000000, MOVDIR64B);
    check(got_signal == SIGSEGV);
    check(untouched());
}

static void test_faults(void)
{
    uint8_t *hole = map(0, 2 * PAGE);
    int i;

    munmap(hole + PAGE, PAGE);
    prepare();
    for (i = 1; i < 64; i++) {
        RUN(dst + i, src, MOVDIR64B);
        check(protection());
    }
    check(untouched());

    mprotect(dst, PAGE, PROT_READ);
    RUN(dst + 128, src, MOVDIR64B);
    check(page_fault(dst + 128, SEGV_ACCERR));
    mprotect(dst, PAGE, PROT_READ | PROT_WRITE);
    check(untouched());

    /* the source ends in a page that is not there */
    for (i = 1; i < 64; i++) {
        RUN(dst, hole + PAGE - i, MOVDIR64B);
        check(page_fault(hole + PAGE, SEGV_MAPERR));
    }
    check(untouched());
    RUN(dst, hole + PAGE - 64, MOVDIR64B);
    check(!got_signal && moved(0, hole + PAGE - 64));

    /* neither is there: the source is read first */
    RUN(hole + PAGE + 64, hole + PAGE + 128, MOVDIR64B);
    check(page_fault(hole + PAGE + 128, SEGV_MAPERR));
    RUN(hole + PAGE + 64, src, MOVDIR64B);
    check(page_fault(hole + PAGE + 64, SEGV_MAPERR));
    munmap(hole, PAGE);
}

static void test_overlap(void)
{
    uint8_t wanted[64];

    prepare();
    memcpy(wanted, src + 32, 64);
    RUN(src, src + 32, MOVDIR64B);
    check(!got_signal && !memcmp(src, wanted, 64));
    prepare();
    memcpy(wanted, src + 33, 64);
    RUN(src + 64, src + 33, MOVDIR64B);
    check(!got_signal && !memcmp(src + 64, wanted, 64));
}

/* Code that was executed before is replaced by a direct store */
static void test_code(void)
{
    static const uint8_t one[] = { 0xb8, 1, 0, 0, 0, 0xc3 };
    static const uint8_t two[] = { 0xb8, 2, 0, 0, 0, 0xc3 };
    uint8_t *code = map(0, PAGE);
    int (*call)(void) = (int (*)(void))code;

    mprotect(code, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    memcpy(code, one, sizeof(one));
    memcpy(src, two, sizeof(two));
    check(call() == 1);
    RUN(code, src, MOVDIR64B);
    check(!got_signal && call() == 2);
    munmap(code, PAGE);
}

/* volatile: written by the other thread */
static volatile bool stop;

static void *writer(void *argument)
{
    uint64_t *a = (uint64_t *)src, *b = a + 8;
    int i;

    for (i = 0; i < 8; i++) {
        a[i] = 0;
        b[i] = ~0ULL;
    }
    for (i = 0; i < 200000; i++) {
        asm volatile(".byte " MOVDIR64B
                     : : "a"(dst), "d"(i & 1 ? a : b) : "memory");
    }
    stop = true;
    return NULL;
}

/* Every 8 bytes arrive as one, whatever another thread does meanwhile */
static void test_threads(void)
{
    /* volatile: written by the other thread */
    volatile uint64_t *slot = (volatile uint64_t *)dst;
    pthread_t thread;
    unsigned long torn = 0;
    int i;

    memset(dst, 0, 64);
    stop = false;
    pthread_create(&thread, NULL, writer, NULL);
    while (!stop) {
        for (i = 0; i < 8; i++) {
            uint64_t value = slot[i];

            torn += value != 0 && value != ~0ULL;
        }
    }
    pthread_join(thread, NULL);
    got_signal = 0;
    check(torn == 0);
}

static void test_enqueue(bool present)
{
    prepare();
    memset(src, 0, 4);
    RUN(dst, src, ENQCMD);      /* no PASID has been given to this process */
    check(present ? protection() : illegal());
    RUN(dst, src, ENQCMDS);     /* privileged */
    check(present ? protection() : illegal());
    RUN(dst, src, "0xf2, 0x66, 0x0f, 0x38, 0xf8, 0x02");
    check(present ? protection() : illegal());
    RUN(dst, src, "0xf0, " ENQCMD);
    check(illegal());
    RUN(dst, src, "0xf0, " ENQCMDS);
    check(illegal());
    RUN(dst, src, "0xf2, 0x0f, 0x38, 0xf8, 0xc2");
    check(illegal());
    RUN(dst, src, "0xf3, 0x0f, 0x38, 0xf8, 0xc2");
    check(illegal());
    check(untouched());
}

int main(void)
{
    struct sigaction action = {
        .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER,
    };
    unsigned a, b, c, d;

    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) ||
        !(c & (1u << 27)) || !(c & (1u << 28))) {
        puts("not ok: CPUID has no MOVDIRI or no MOVDIR64B");
        return 1;
    }
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    dst = map(0x20000000, PAGE);
    src = map(0x20010000, PAGE);

    test_movdiri();
    test_decoding();
    test_addresses();
    test_faults();
    test_overlap();
    test_code();
    test_threads();
    test_enqueue(c & (1u << 29));
    printf("%s: %d checks, %d failed, enqcmd %s\n", failures ? "not ok" : "ok",
           checks, failures, c & (1u << 29) ? "present" : "absent");
    return failures != 0;
}
