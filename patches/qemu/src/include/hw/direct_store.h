/*
 * Devices that take 64-byte direct stores
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_DIRECT_STORE_H
#define HW_DIRECT_STORE_H

#include "exec/hwaddr.h"
#include "exec/memattrs.h"
#include "qom/object.h"

#define DIRECT_STORE_SIZE 64

#define TYPE_DIRECT_STORE_TARGET "direct-store-target"

typedef struct DirectStoreTargetClass DirectStoreTargetClass;
DECLARE_CLASS_CHECKERS(DirectStoreTargetClass, DIRECT_STORE_TARGET,
                       TYPE_DIRECT_STORE_TARGET)
#define DIRECT_STORE_TARGET(obj) \
    INTERFACE_CHECK(DirectStoreTarget, (obj), TYPE_DIRECT_STORE_TARGET)

typedef struct DirectStoreTarget DirectStoreTarget;

/**
 * DirectStoreTargetClass:
 *
 * Implemented by the owner of an I/O region that tells one 64-byte write
 * from eight writes of 8 bytes.  Both methods are called with the BQL held
 * and may be %NULL.  @offset is relative to @mr and 64-byte aligned; @data
 * are %DIRECT_STORE_SIZE bytes in memory order, valid during the call.
 */
struct DirectStoreTargetClass {
    InterfaceClass parent_class;

    /**
     * @store64: a posted write (x86 MOVDIR64B).  Without this method the
     * region sees eight writes of 8 bytes.
     */
    void (*store64)(DirectStoreTarget *t, MemoryRegion *mr, hwaddr offset,
                    const uint8_t *data, MemTxAttrs attrs);

    /**
     * @dmwr64: a deferrable memory write (x86 ENQCMD and ENQCMDS), which
     * the device accepts (%true) or asks to retry (%false).  Without this
     * method the answer is to retry.
     */
    bool (*dmwr64)(DirectStoreTarget *t, MemoryRegion *mr, hwaddr offset,
                   const uint8_t *data, MemTxAttrs attrs);
};

/**
 * direct_store_write: hand a 64-byte write to the owner of a region
 * @mr: the region hit
 * @offset: offset in @mr, 64-byte aligned
 * @data: the bytes
 * @attrs: attributes of the access
 *
 * Returns: false if the owner does not take such writes; nothing happened
 * then and the caller has to split the write.
 */
bool direct_store_write(MemoryRegion *mr, hwaddr offset, const uint8_t *data,
                        MemTxAttrs attrs);

/**
 * direct_store_enqueue: hand a deferrable write to the owner of a region
 * @mr: the region hit
 * @offset: offset in @mr, 64-byte aligned
 * @data: the bytes
 * @attrs: attributes of the access
 *
 * Returns: true if the owner accepted the write, false if the write has to
 * be retried or if the owner does not take such writes.
 */
bool direct_store_enqueue(MemoryRegion *mr, hwaddr offset, const uint8_t *data,
                          MemTxAttrs attrs);

#endif /* HW_DIRECT_STORE_H */
