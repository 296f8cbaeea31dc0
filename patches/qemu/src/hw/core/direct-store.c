/*
 * Devices that take 64-byte direct stores
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "exec/memory.h"
#include "hw/direct_store.h"
#include "hw/qdev-core.h"

/*
 * The methods are entered past memory_region_dispatch_write(), so they need
 * what it does against a device that reaches its own registers by DMA.
 */
static bool direct_store_enter(MemoryRegion *mr)
{
    if (!mr->dev || mr->disable_reentrancy_guard) {
        return true;
    }
    if (mr->dev->mem_reentrancy_guard.engaged_in_io) {
        warn_report_once("Blocked re-entrant direct store to MemoryRegion: %s",
                         memory_region_name(mr));
        return false;
    }
    mr->dev->mem_reentrancy_guard.engaged_in_io = true;
    return true;
}

static void direct_store_leave(MemoryRegion *mr)
{
    if (mr->dev && !mr->disable_reentrancy_guard) {
        mr->dev->mem_reentrancy_guard.engaged_in_io = false;
    }
}

static DirectStoreTarget *direct_store_target(MemoryRegion *mr)
{
    Object *owner = memory_region_owner(mr);

    return (DirectStoreTarget *)
        (owner ? object_dynamic_cast(owner, TYPE_DIRECT_STORE_TARGET) : NULL);
}

bool direct_store_write(MemoryRegion *mr, hwaddr offset, const uint8_t *data,
                        MemTxAttrs attrs)
{
    DirectStoreTarget *t = direct_store_target(mr);
    DirectStoreTargetClass *c;

    assert(bql_locked());
    if (!t) {
        return false;
    }
    c = DIRECT_STORE_TARGET_GET_CLASS(t);
    if (!c->store64) {
        return false;
    }
    if (direct_store_enter(mr)) {
        c->store64(t, mr, offset, data, attrs);
        direct_store_leave(mr);
    }
    return true;
}

bool direct_store_enqueue(MemoryRegion *mr, hwaddr offset, const uint8_t *data,
                          MemTxAttrs attrs)
{
    DirectStoreTarget *t = direct_store_target(mr);
    DirectStoreTargetClass *c;
    bool accepted;

    assert(bql_locked());
    if (!t) {
        return false;
    }
    c = DIRECT_STORE_TARGET_GET_CLASS(t);
    if (!c->dmwr64 || !direct_store_enter(mr)) {
        return false;
    }
    accepted = c->dmwr64(t, mr, offset, data, attrs);
    direct_store_leave(mr);
    return accepted;
}

static const TypeInfo direct_store_target_info = {
    .name       = TYPE_DIRECT_STORE_TARGET,
    .parent     = TYPE_INTERFACE,
    .class_size = sizeof(DirectStoreTargetClass),
};

static void direct_store_register_types(void)
{
    type_register_static(&direct_store_target_info);
}

type_init(direct_store_register_types)
