/*
 * x86 direct stores to I/O regions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/main-loop.h"
#include "cpu.h"
#include "accel/tcg/cpu-ops.h"
#include "exec/cpu_ldst.h"
#include "exec/exec-all.h"
#include "exec/memory.h"
#include "hw/core/cpu.h"
#include "hw/direct_store.h"
#include "tcg/helper-tcg.h"

/*
 * Find the region behind a destination that probe_access() let pass but gave
 * no host address for.  Returns NULL for memory: it has no host address if it
 * is ROM, or if a plugin wants to see each access.
 */
static MemoryRegion *direct_store_region(CPUX86State *env, vaddr dst,
                                         int mmu_idx, uintptr_t ra,
                                         hwaddr *offset, MemTxAttrs *attrs)
{
    CPUState *cs = env_cpu(env);
    hwaddr len = DIRECT_STORE_SIZE;
    CPUTLBEntryFull *full;
    MemoryRegion *mr;
    AddressSpace *as;

    if (!(probe_access_full_mmu(env, dst, DIRECT_STORE_SIZE, MMU_DATA_STORE,
                                mmu_idx, NULL, &full) & TLB_MMIO)) {
        return NULL;
    }
    *attrs = full->attrs;
    as = cpu_get_address_space(cs, cpu_asidx_from_attrs(cs, *attrs));
    mr = address_space_translate(as,
                                 full->phys_addr | (dst & ~TARGET_PAGE_MASK),
                                 offset, &len, true, *attrs);
    if (memory_region_is_ram(mr) || memory_region_is_romd(mr) ||
        len < DIRECT_STORE_SIZE) {
        return NULL;
    }
    /* probe_access() has looked for watchpoints in memory only */
    if (full->slow_flags[MMU_DATA_STORE] & TLB_WATCHPOINT) {
        cpu_check_watchpoint(cs, dst, DIRECT_STORE_SIZE, *attrs,
                             BP_MEM_WRITE, ra);
    }
    return mr;
}

/*
 * Store 64 bytes if the destination is I/O: as one if the device knows how to
 * take them, otherwise as eight writes between which no other vCPU's access
 * comes.  Returns false if the destination is memory.
 */
bool x86_direct_store_io(CPUX86State *env, vaddr dst, const uint8_t *data,
                         int mmu_idx, uintptr_t ra)
{
    MemoryRegion *mr;
    MemTxAttrs attrs;
    hwaddr offset;
    int i;

    BQL_LOCK_GUARD();
    mr = direct_store_region(env, dst, mmu_idx, ra, &offset, &attrs);
    if (!mr) {
        return false;
    }
    if (!direct_store_write(mr, offset, data, attrs)) {
        for (i = 0; i < DIRECT_STORE_SIZE; i += 8) {
            cpu_stq_le_mmuidx_ra(env, dst + i, ldq_le_p(data + i),
                                 mmu_idx, ra);
        }
    }
    return true;
}
