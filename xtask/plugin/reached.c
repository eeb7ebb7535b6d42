/*
 * Which user code the guest executes, as a QEMU TCG plugin for x86_64: at exit a line `ADDRESS LENGTH BYTES COUNT` for each
 * block of code, in the file given as `out=FILE`: where it starts, its length in bytes, its first bytes in hexadecimal (they
 * tell programs at the same address apart), and how often it was entered.
 */
#include "qemu_plugin.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

struct block {
    struct block *next;
    uint64_t address, length, entered;
    uint8_t code[8];
    size_t known;
};

/* Only grows: QEMU holds its lock while it translates. */
static struct block *blocks;
static FILE *out;

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    size_t n = qemu_plugin_tb_n_insns(tb);

    (void)id;
    if (!n)
        return;
    struct qemu_plugin_insn *start = qemu_plugin_tb_get_insn(tb, 0);
    uint64_t address = qemu_plugin_insn_vaddr(start);
    if (address >> 63)
        return;
    struct block *block = calloc(1, sizeof *block);
    if (!block)
        return;
    block->address = address;
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        size_t length = qemu_plugin_insn_size(insn);
        size_t room = sizeof block->code - block->known;
        size_t take = length < room ? length : room;

        memcpy(block->code + block->known, qemu_plugin_insn_data(insn), take);
        block->known += take;
        block->length += length;
    }
    qemu_plugin_register_vcpu_insn_exec_inline(start, QEMU_PLUGIN_INLINE_ADD_U64, &block->entered, 1);
    struct block *first = __atomic_load_n(&blocks, __ATOMIC_ACQUIRE);
    do
        block->next = first;
    while (!__atomic_compare_exchange_n(&blocks, &first, block, 1, __ATOMIC_RELEASE, __ATOMIC_ACQUIRE));
}

static void write_blocks(qemu_plugin_id_t id, void *data)
{
    (void)id;
    (void)data;
    for (struct block *block = blocks; block; block = block->next) {
        if (!block->entered)
            continue;
        fprintf(out, "%" PRIx64 " %" PRIu64 " ", block->address, block->length);
        for (size_t i = 0; i < block->known; i++)
            fprintf(out, "%02x", block->code[i]);
        fprintf(out, " %" PRIu64 "\n", block->entered);
    }
    fclose(out);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    if (!info->system_emulation || strcmp(info->target_name, "x86_64") || argc != 1
        || strncmp(argv[0], "out=", 4)) {
        fputs("reached: out=FILE, and only for system emulation of x86_64\n", stderr);
        return -1;
    }
    out = fopen(argv[0] + 4, "w");
    if (!out) {
        perror(argv[0] + 4);
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_atexit_cb(id, write_blocks, NULL);
    return 0;
}
