/*
 * What the rows of the Linux peer share: passes, markers, time and failure.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <stdnoreturn.h>

/* Each row is measured this often, after one pass that is not counted. */
#define PASSES 5

/* The section names; only lines on the console connect them to rows. */
enum section {
    SECTION_BOOT,
    SECTION_NULL_CALL,
    SECTION_CALL_REPLY,
    SECTION_CALL_REPLY_PIPE,
    SECTION_THREAD_SWITCH,
    SECTION_PAGE_FAULT,
    SECTION_SPAWN,
    SECTION_FORK,
    SECTION_IRQ,
    SECTION_RAW_READ_4K_QD1,
    SECTION_RAW_READ_4K_QD32,
    SECTION_RAW_WRITE_4K_QD1,
    SECTION_RAW_WRITE_4K_QD32,
    SECTION_RAW_SEQ_128K,
    SECTION_RAW_SEQ_1M,
    SECTION_EXT4_READ_4K_QD1,
    SECTION_EXT4_READ_4K_QD32,
    SECTION_EXT4_SEQ_128K,
    SECTION_EXT4_SEQ_1M,
    SECTION_EXT4_CACHED_4K,
    SECTION_NVME_READ_4K_QD1,
    SECTION_NVME_READ_4K_QD32,
    SECTION_NVME_WRITE_4K_QD1,
    SECTION_NVME_WRITE_4K_QD32,
    SECTION_NVME_SEQ_128K,
    SECTION_NVME_SEQ_1M,
    /* The first of the loads from outside; both systems number them alike. */
    SECTION_NET = 40,
};

/*
 * The marker that count.c looks for. The section is part of the instruction, so it
 * must be a constant where this is used.
 */
#define MARKER(nnnn) __asm__ volatile(".byte 0x0f,0x1f,0x84,0x00\n.long %c0" \
                                      : : "i"(0x52420000u | (nnnn)) : "memory")

/*
 * Runs `operation` (which does `count` operations) once uncounted, then PASSES times
 * between markers, and prints a line for each. `prepare` runs before every pass,
 * outside the measured part. A macro because the marker needs a constant.
 */
#define MEASURE(row, section, count, prepare, operation)            \
    do {                                                            \
        for (int pass_ = -1; pass_ < PASSES; pass_++) {             \
            prepare;                                                \
            uint64_t start_ = now_ns();                             \
            if (pass_ < 0) {                                        \
                operation;                                          \
            } else {                                                \
                MARKER(section);                                    \
                operation;                                          \
                MARKER(0x8000 | (section));                         \
                report(row, section, count, now_ns() - start_);     \
            }                                                       \
        }                                                           \
    } while (0)

uint64_t now_ns(void);
void report(const char *row, int section, unsigned long count, uint64_t ns);
noreturn void fail(const char *what);

/* Whether the row was asked for on the kernel's command line (bench.rows=A,B). */
int wanted(const char *row);

/* The rows, in the files of the same names. */
void bench_ipc(void);
void bench_process(void);
void bench_irq(void);
void bench_raw(void);
void bench_nvme(void);
void bench_ext4(void);

/* Serves what the host's load of the network talks to, until it is told to end. */
void bench_net(void);

#endif
