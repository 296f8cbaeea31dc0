/*
 * A port by which a guest stops its own machine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Management software that wants to save a guest at a defined point of its
 * work can only guess when that is reached: the monitor's "stop" takes effect
 * wherever the guest happens to be. Here the guest says so itself. It writes
 * to the port, the machine is paused, and "cont" lets the guest go on behind
 * its write, in this process or in another one that has loaded its state.
 *
 * There is no state in the device, hence none to migrate: a write is over
 * when the machine has stopped.
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/module.h"
#include "hw/isa/isa.h"
#include "hw/qdev-properties.h"
#include "qom/object.h"
#include "system/runstate.h"

#define TYPE_GUEST_STOP "guest-stop"
OBJECT_DECLARE_SIMPLE_TYPE(GuestStopState, GUEST_STOP)

/* What can be asked for; reading the port gives all that is known here. */
#define GUEST_STOP_PAUSE    0x01

struct GuestStopState {
    ISADevice parent_obj;

    uint16_t ioport;
    MemoryRegion io;
};

static uint64_t guest_stop_read(void *opaque, hwaddr addr, unsigned size)
{
    return GUEST_STOP_PAUSE;
}

static void guest_stop_write(void *opaque, hwaddr addr, uint64_t val,
                             unsigned size)
{
    if (val & ~GUEST_STOP_PAUSE) {
        qemu_log_mask(LOG_GUEST_ERROR, "guest-stop: unknown request 0x%02x\n",
                      (unsigned)val);
    }
    if (val & GUEST_STOP_PAUSE) {
        /* not guest-panicked or shutdown: those can only be left by a reset */
        vm_stop(RUN_STATE_PAUSED);
    }
}

static const MemoryRegionOps guest_stop_ops = {
    .read = guest_stop_read,
    .write = guest_stop_write,
    .valid.min_access_size = 1,
    .valid.max_access_size = 1,
    .endianness = DEVICE_LITTLE_ENDIAN,
};

static void guest_stop_realize(DeviceState *dev, Error **errp)
{
    GuestStopState *s = GUEST_STOP(dev);

    memory_region_init_io(&s->io, OBJECT(dev), &guest_stop_ops, s,
                          TYPE_GUEST_STOP, 1);
    isa_register_ioport(ISA_DEVICE(dev), &s->io, s->ioport);
}

static const Property guest_stop_properties[] = {
    DEFINE_PROP_UINT16("ioport", GuestStopState, ioport, 0x506),
};

static void guest_stop_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->desc = "A port by which a guest stops its own machine";
    dc->realize = guest_stop_realize;
    device_class_set_props(dc, guest_stop_properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo guest_stop_info = {
    .name          = TYPE_GUEST_STOP,
    .parent        = TYPE_ISA_DEVICE,
    .instance_size = sizeof(GuestStopState),
    .class_init    = guest_stop_class_init,
};

static void guest_stop_register_types(void)
{
    type_register_static(&guest_stop_info);
}

type_init(guest_stop_register_types)
