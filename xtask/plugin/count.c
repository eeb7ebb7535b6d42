/*
 * Counts what the guest executes between two marker instructions, as a QEMU TCG
 * plugin for x86_64.
 *
 * A marker is `nopl 0x5242NNNN(%rax,%rax,1)`, bytes 0f 1f 84 00 NN NN 42 52: it does
 * nothing, is legal at any privilege, and no compiler emits it. NNNN is the section:
 * bit 15 clear starts it, bit 15 set ends it, bits 14..0 name it. The end of a
 * section that never started counts from the machine's reset; that is how the boot
 * is measured. Sections may overlap.
 *
 * Every end of a section writes one line of JSON to the file given as `out=FILE`.
 * Counts are per machine, not per CPU: run with one. Kernel and user are told apart
 * by the address half, so code that runs at low addresses before paging counts as
 * user. An instruction that faults is counted again when it is restarted, and a
 * repeated string instruction counts once for each iteration.
 *
 * `mmio=on` also counts accesses to device memory. It calls out for each memory
 * operand and is several times slower; everything else is counted inline.
 *
 * `profile=FILE` also counts by place, and writes at exit `ADDRESS BYTES INSTRUCTIONS`
 * for each block of code that ran inside a section: where it starts, its first bytes
 * in hexadecimal (they tell programs at the same address apart), and how many of its
 * instructions ran. The number that it adds up to is a little too high, because a
 * block that an exception leaves early counts as a whole.
 */
#include "qemu_plugin.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum counter {
    USER,
    KERNEL,
    CR3_WRITES,
    HALTS,
    PORT_ACCESSES,
    INTERRUPT_RETURNS,
    MMIO_ACCESSES,
    COUNTERS,
};

static const char *const counter_names[COUNTERS] = {
    "user", "kernel", "cr3_writes", "halts", "port_accesses", "interrupt_returns",
    "mmio_accesses",
};

#define SECTIONS 0x8000u
#define SECTION_END 0x8000u

static uint64_t counters[COUNTERS];
static uint64_t at_start[SECTIONS][COUNTERS];
static uint32_t passes[SECTIONS];
static bool count_mmio;
static FILE *out;

/* A block of code for the profile, in a hash table with open addressing. */
struct block {
    uint64_t address;
    uint8_t code[8];
    uint64_t executed, at_start, in_sections;
};

#define BLOCKS (1u << 19)

static struct block *blocks;
static FILE *profile;
static unsigned open_sections;

static struct block *block_at(uint64_t address, const uint8_t code[8])
{
    uint64_t bytes;

    memcpy(&bytes, code, 8);
    uint64_t hash = (address ^ bytes * 0x9e3779b97f4a7c15u) * 0x9e3779b97f4a7c15u;
    for (uint32_t i = hash >> 45, probes = 0; probes < BLOCKS; i++, probes++) {
        struct block *block = &blocks[i % BLOCKS];
        if (!block->address) {
            block->address = address;
            memcpy(block->code, code, 8);
        }
        if (block->address == address && !memcmp(block->code, code, 8))
            return block;
    }
    return NULL;
}

static void section_start(unsigned int vcpu, void *userdata)
{
    (void)vcpu;
    if (profile && !open_sections++)
        for (uint32_t i = 0; i < BLOCKS; i++)
            blocks[i].at_start = blocks[i].executed;
    memcpy(at_start[(uintptr_t)userdata], counters, sizeof counters);
}

static void section_end(unsigned int vcpu, void *userdata)
{
    uintptr_t section = (uintptr_t)userdata;

    (void)vcpu;
    fprintf(out, "{\"section\":%u,\"pass\":%u", (unsigned)section, passes[section]++);
    for (int i = 0; i < COUNTERS; i++)
        if (i != MMIO_ACCESSES || count_mmio)
            fprintf(out, ",\"%s\":%" PRIu64, counter_names[i],
                    counters[i] - at_start[section][i]);
    fputs("}\n", out);
    fflush(out);
    /* The end of the boot's section has no start. */
    if (profile && open_sections && !--open_sections)
        for (uint32_t i = 0; i < BLOCKS; i++)
            blocks[i].in_sections += blocks[i].executed - blocks[i].at_start;
}

static void write_profile(qemu_plugin_id_t id, void *userdata)
{
    (void)id;
    (void)userdata;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        if (!blocks[i].in_sections)
            continue;
        fprintf(profile, "%" PRIx64 " ", blocks[i].address);
        for (int k = 0; k < 8; k++)
            fprintf(profile, "%02x", blocks[i].code[k]);
        fprintf(profile, " %" PRIu64 "\n", blocks[i].in_sections);
    }
    fclose(profile);
}

/* Counts the instructions of a block in one go; blocks that find no place are left out. */
static void profile_block(struct qemu_plugin_tb *tb, size_t instructions)
{
    uint8_t code[8] = { 0 };
    size_t len = 0;
    struct qemu_plugin_insn *first = qemu_plugin_tb_get_insn(tb, 0);

    for (size_t i = 0; i < instructions && len < sizeof code; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        size_t n = qemu_plugin_insn_size(insn);
        if (n > sizeof code - len)
            n = sizeof code - len;
        memcpy(code + len, qemu_plugin_insn_data(insn), n);
        len += n;
    }
    struct block *block = block_at(qemu_plugin_insn_vaddr(first), code);
    if (block)
        qemu_plugin_register_vcpu_insn_exec_inline(first, QEMU_PLUGIN_INLINE_ADD_U64,
                                                   &block->executed, instructions);
}

static void memory_access(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr,
                          void *userdata)
{
    struct qemu_plugin_hwaddr *address = qemu_plugin_get_hwaddr(info, vaddr);

    (void)vcpu;
    (void)userdata;
    if (address && qemu_plugin_hwaddr_is_io(address))
        counters[MMIO_ACCESSES]++;
}

/* The counter, apart from USER and KERNEL, that an instruction belongs to; or none. */
static int special_counter(const uint8_t *code, size_t len)
{
    size_t i = 0;
    bool rex_w = false;

    while (i < len && (code[i] == 0x66 || code[i] == 0xf2 || code[i] == 0xf3))
        i++;
    if (i < len && (code[i] & 0xf0) == 0x40)
        rex_w = code[i++] & 8;
    if (i >= len)
        return -1;
    switch (code[i]) {
    case 0x0f: /* 0f 22 /3: mov to cr3 */
        return i + 2 < len && code[i + 1] == 0x22 && (code[i + 2] & 0x38) == 0x18 ? CR3_WRITES
                                                                                   : -1;
    case 0xf4:
        return HALTS;
    case 0xcf:
        return rex_w ? INTERRUPT_RETURNS : -1;
    case 0x6c: case 0x6d: case 0x6e: case 0x6f: /* ins, outs */
    case 0xe4: case 0xe5: case 0xe6: case 0xe7: /* in, out with a constant port */
    case 0xec: case 0xed: case 0xee: case 0xef: /* in, out with dx */
        return PORT_ACCESSES;
    default:
        return -1;
    }
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    size_t n = qemu_plugin_tb_n_insns(tb);

    (void)id;
    if (profile && n)
        profile_block(tb, n);
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        const uint8_t *code = qemu_plugin_insn_data(insn);
        size_t len = qemu_plugin_insn_size(insn);
        bool kernel = qemu_plugin_insn_vaddr(insn) >> 63;
        int special = special_counter(code, len);

        qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64,
                                                   &counters[kernel ? KERNEL : USER], 1);
        if (special >= 0)
            qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64,
                                                       &counters[special], 1);
        if (len == 8 && !memcmp(code, "\x0f\x1f\x84\x00", 4) && !memcmp(code + 6, "\x42\x52", 2)) {
            uint16_t name = (uint16_t)(code[4] | code[5] << 8);
            qemu_plugin_register_vcpu_insn_exec_cb(
                insn, name & SECTION_END ? section_end : section_start,
                QEMU_PLUGIN_CB_NO_REGS, (void *)(uintptr_t)(name % SECTIONS));
        }
        if (count_mmio)
            qemu_plugin_register_vcpu_mem_cb(insn, memory_access, QEMU_PLUGIN_CB_NO_REGS,
                                             QEMU_PLUGIN_MEM_RW, NULL);
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    if (!info->system_emulation || strcmp(info->target_name, "x86_64")) {
        fputs("count: only for system emulation of x86_64\n", stderr);
        return -1;
    }
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "out=", 4)) {
            out = fopen(argv[i] + 4, "w");
            if (!out) {
                perror(argv[i] + 4);
                return -1;
            }
        } else if (!strncmp(argv[i], "profile=", 8)) {
            profile = fopen(argv[i] + 8, "w");
            blocks = calloc(BLOCKS, sizeof *blocks);
            if (!profile || !blocks) {
                perror(argv[i] + 8);
                return -1;
            }
        } else if (!strcmp(argv[i], "mmio=on")) {
            count_mmio = true;
        } else {
            fprintf(stderr, "count: unknown argument %s\n", argv[i]);
            return -1;
        }
    }
    if (!out) {
        fputs("count: out=FILE is missing\n", stderr);
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    if (profile)
        qemu_plugin_register_atexit_cb(id, write_profile, NULL);
    return 0;
}
