/*
 * x86 direct stores: MOVDIR64B
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "cpu.h"
#include "exec/cpu_ldst.h"
#include "exec/helper-proto.h"
#include "hw/direct_store.h"
#include "access.h"
#include "helper-tcg.h"

/*
 * The source is read completely before anything is known of the destination,
 * so that whatever faults, nothing has been written.  It may be unaligned,
 * cross into another page, or be I/O.
 */
static void direct_store_load(CPUX86State *env, target_ulong src,
                              uint64_t *data, uintptr_t ra)
{
    X86Access ac;
    int i;

    access_prepare(&ac, env, src, DIRECT_STORE_SIZE, MMU_DATA_LOAD, ra);
    for (i = 0; i < DIRECT_STORE_SIZE / 8; i++) {
        data[i] = cpu_to_le64(access_ldq(&ac, src + i * 8));
    }
}

/*
 * Memory receives eight stores of 8 bytes in ascending order, each of them
 * atomic.  No x86 load is guaranteed to see more than that at once.  Only a
 * device can tell 64 bytes that arrive as one, and for it they do.
 */
void helper_movdir64b(CPUX86State *env, target_ulong dst, target_ulong src)
{
    uintptr_t ra = GETPC();
    uint64_t data[DIRECT_STORE_SIZE / 8];
    X86Access ac;
    int i;

    direct_store_load(env, src, data, ra);
    if (dst % DIRECT_STORE_SIZE) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    }
    access_prepare(&ac, env, dst, DIRECT_STORE_SIZE, MMU_DATA_STORE, ra);
#ifndef CONFIG_USER_ONLY
    if (unlikely(!ac.haddr1) &&
        x86_direct_store_io(env, dst, (uint8_t *)data, ac.mmu_idx, ra)) {
        return;
    }
#endif
    for (i = 0; i < DIRECT_STORE_SIZE / 8; i++) {
        access_stq(&ac, dst + i * 8, le64_to_cpu(data[i]));
    }
}
