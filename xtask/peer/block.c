/*
 * Block reads and writes, O_DIRECT except for the row of the page cache. Random at depth 1: pread and pwrite. All others:
 * io_uring with registered file and buffers, which spares Linux looking up the pages;
 * at depth 32 in the way of fio, where whatever has completed is reaped and replaced
 * in one batch; sequential at depth 1, for which it was measured cheaper than pread.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define SMALL 4096
#define RANDOM_OPERATIONS 2000
#define DEPTH 32
#define BUFFER (1u << 20)
#define SEQUENTIAL_BYTES (8u << 20) /* in each pass, from where the last one ended */

static int file;
static uint64_t blocks;
static unsigned char *buffer;

/*
 * Offsets that look random and do not repeat before each block was read once, so that
 * no cache can answer. The number of blocks is a power of two; the factor is odd.
 */
static uint64_t next_block;

static uint64_t random_offset(void)
{
    return next_block++ * 0x9e3779b1u % blocks * SMALL;
}

static void random_at_depth_1(int write)
{
    for (int i = 0; i < RANDOM_OPERATIONS; i++) {
        uint64_t at = random_offset();
        ssize_t n = write ? pwrite(file, buffer, SMALL, (off_t)at)
                          : pread(file, buffer, SMALL, (off_t)at);
        if (n != SMALL)
            fail("random");
    }
}

static struct {
    int fd;
    struct io_uring_sqe *sqes;
    _Atomic uint32_t *sq_tail, *cq_head, *cq_tail;
    uint32_t *sq_array;
    uint32_t sq_mask, cq_mask;
    struct io_uring_cqe *cqes;
} ring;

static void *map_ring(size_t size, off_t what)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, what);

    if (p == MAP_FAILED)
        fail("io_uring mmap");
    return p;
}

static void open_ring(void)
{
    struct io_uring_params p = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
    };
    struct iovec all = { buffer, BUFFER };

    ring.fd = (int)syscall(SYS_io_uring_setup, DEPTH, &p);
    if (ring.fd < 0)
        fail("io_uring_setup");
    char *sq = map_ring(p.sq_off.array + p.sq_entries * sizeof(uint32_t), IORING_OFF_SQ_RING);
    char *cq = map_ring(p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
                        IORING_OFF_CQ_RING);
    ring.sqes = map_ring(p.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
    ring.sq_tail = (void *)(sq + p.sq_off.tail);
    ring.sq_mask = *(uint32_t *)(sq + p.sq_off.ring_mask);
    ring.sq_array = (void *)(sq + p.sq_off.array);
    ring.cq_head = (void *)(cq + p.cq_off.head);
    ring.cq_tail = (void *)(cq + p.cq_off.tail);
    ring.cq_mask = *(uint32_t *)(cq + p.cq_off.ring_mask);
    ring.cqes = (void *)(cq + p.cq_off.cqes);
    if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &all, 1) ||
        syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES, &file, 1))
        fail("io_uring_register");
}

static void prepare(uint32_t tail, uint8_t opcode, uint32_t slot, uint64_t at, uint32_t len)
{
    struct io_uring_sqe *sqe = &ring.sqes[tail & ring.sq_mask];

    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = opcode;
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->off = at;
    sqe->addr = (uintptr_t)(buffer + (size_t)slot * SMALL);
    sqe->len = len;
    sqe->user_data = slot;
    ring.sq_array[tail & ring.sq_mask] = tail & ring.sq_mask;
}

/* Submits up to `tail`, waits until something has completed, returns the new end. */
static uint32_t submit_and_wait(uint32_t tail, uint32_t count)
{
    atomic_store_explicit(ring.sq_tail, tail, memory_order_release);
    if (syscall(SYS_io_uring_enter, ring.fd, count, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        fail("io_uring_enter");
    return atomic_load_explicit(ring.cq_tail, memory_order_acquire);
}

static void random_at_depth_32(int write)
{
    uint8_t opcode = write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED;
    uint32_t tail = atomic_load(ring.sq_tail), head = atomic_load(ring.cq_head);
    uint32_t to_submit = DEPTH, started = DEPTH, completed = 0;

    for (uint32_t slot = 0; slot < DEPTH; slot++)
        prepare(tail++, opcode, slot, random_offset(), SMALL);
    while (completed < RANDOM_OPERATIONS) {
        uint32_t ready = submit_and_wait(tail, to_submit);
        to_submit = 0;
        for (; head != ready; head++, completed++) {
            struct io_uring_cqe *cqe = &ring.cqes[head & ring.cq_mask];
            if (cqe->res != SMALL)
                fail("io_uring");
            if (started < RANDOM_OPERATIONS) {
                prepare(tail++, opcode, (uint32_t)cqe->user_data, random_offset(), SMALL);
                started++;
                to_submit++;
            }
        }
        atomic_store_explicit(ring.cq_head, head, memory_order_release);
    }
}

static uint64_t next_byte;

static void sequential(uint32_t size)
{
    uint32_t tail = atomic_load(ring.sq_tail), head = atomic_load(ring.cq_head);

    for (uint64_t end = next_byte + SEQUENTIAL_BYTES; next_byte < end; next_byte += size) {
        prepare(tail++, IORING_OP_READ_FIXED, 0, next_byte, size);
        if (submit_and_wait(tail, 1) == head)
            fail("io_uring");
        if (ring.cqes[head++ & ring.cq_mask].res != (int)size)
            fail("sequential");
        atomic_store_explicit(ring.cq_head, head, memory_order_release);
    }
}

static void open_file(const char *path, int flags)
{
    uint64_t size;
    struct stat s;

    file = open(path, flags);
    if (file < 0 || fstat(file, &s))
        fail(path);
    size = (uint64_t)s.st_size;
    if (!S_ISREG(s.st_mode) && ioctl(file, BLKGETSIZE64, &size))
        fail(path);
    blocks = size / SMALL;
    if (!blocks || blocks & (blocks - 1))
        fail("not a power of two");
    next_block = next_byte = 0;
    if (!buffer)
        buffer = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (buffer == MAP_FAILED)
        fail("mmap");
    open_ring();
}

static void close_file(void)
{
    close(ring.fd);
    close(file);
}

/* A row on a file of its own; a macro because a marker needs a constant section. */
#define ROW(row, section, path, flags, count, operation)              \
    do {                                                              \
        if (wanted(row)) {                                            \
            open_file(path, flags);                                   \
            MEASURE(row, section, count, (void)0, operation);         \
            close_file();                                             \
        }                                                             \
    } while (0)

#define COUNT_128K (SEQUENTIAL_BYTES >> 17)
#define COUNT_1M (SEQUENTIAL_BYTES >> 20)

/* The rows of a disk without contents; a macro for the same reason. */
#define DISK_ROWS(name, SECTION, disk)                                                          \
    do {                                                                                        \
        const int flags = O_RDWR | O_DIRECT;                                                    \
        ROW(name "-read-4k-qd1", SECTION##_READ_4K_QD1, disk, flags, RANDOM_OPERATIONS,         \
            random_at_depth_1(0));                                                              \
        ROW(name "-read-4k-qd32", SECTION##_READ_4K_QD32, disk, flags, RANDOM_OPERATIONS,       \
            random_at_depth_32(0));                                                             \
        ROW(name "-write-4k-qd1", SECTION##_WRITE_4K_QD1, disk, flags, RANDOM_OPERATIONS,       \
            random_at_depth_1(1));                                                              \
        ROW(name "-write-4k-qd32", SECTION##_WRITE_4K_QD32, disk, flags, RANDOM_OPERATIONS,     \
            random_at_depth_32(1));                                                             \
        ROW(name "-seq-read-128k", SECTION##_SEQ_128K, disk, flags, COUNT_128K,                 \
            sequential(1 << 17));                                                               \
        ROW(name "-seq-read-1m", SECTION##_SEQ_1M, disk, flags, COUNT_1M, sequential(1 << 20)); \
    } while (0)

void bench_raw(void)
{
    DISK_ROWS("raw", SECTION_RAW, "/dev/vda");
}

void bench_nvme(void)
{
    DISK_ROWS("nvme", SECTION_NVME, "/dev/nvme0n1");
}

void bench_ext4(void)
{
    int flags = O_RDONLY | O_DIRECT;

    ROW("ext4-read-4k-qd1", SECTION_EXT4_READ_4K_QD1, "/mnt/qd1.bin", flags, RANDOM_OPERATIONS,
        random_at_depth_1(0));
    ROW("ext4-read-4k-qd32", SECTION_EXT4_READ_4K_QD32, "/mnt/qd32.bin", flags,
        RANDOM_OPERATIONS, random_at_depth_32(0));
    ROW("ext4-seq-read-128k", SECTION_EXT4_SEQ_128K, "/mnt/128k.bin", flags, COUNT_128K,
        sequential(1 << 17));
    ROW("ext4-seq-read-1m", SECTION_EXT4_SEQ_1M, "/mnt/1m.bin", flags, COUNT_1M,
        sequential(1 << 20));
    /* The same blocks in each pass: all but the first, which is not counted, find them cached. */
    if (wanted("ext4-cached-4k")) {
        open_file("/mnt/cached.bin", O_RDONLY);
        MEASURE("ext4-cached-4k", SECTION_EXT4_CACHED_4K, RANDOM_OPERATIONS, next_block = 0,
                random_at_depth_1(0));
        close_file();
    }
}
