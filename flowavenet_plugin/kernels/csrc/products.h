// Products of rows with a panel of columns that lies in the cache; the sums of a few rows are in registers.
#ifndef FLOWAVENET_PRODUCTS_H
#define FLOWAVENET_PRODUCTS_H
#include "numbers.h"
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

// ROWS * VECTORS sums, VECTORS of a panel's row and one value fill the registers.
#ifdef __AVX512F__
#define LANES 16
#define VECTORS 4
#else
#define LANES 8
#define VECTORS 2
#endif
#define PANEL (LANES * VECTORS)
#define ROWS 6
#define BLOCK 16  // rows of a matrix whose columns are put beside each other at once

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES), aligned(4)));

// A value of four bytes is a float, or two of bfloat16 that belong to two summands.
#define ADD_float(sum, value, own) sum += value * own
#ifdef __AVX512BF16__
#define ADD_bf16(sum, value, own) \
    sum = (Vector)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)_mm512_set1_ps(value), (__m512bh)(own))
#else
static inline Vector low(Bits pair) { return (Vector)(pair << 16); }
static inline Vector high(Bits pair) { return (Vector)(pair & 0xffff0000u); }
static inline Bits spread(float value) {  // as bits: a pair may look like a float that arithmetic takes for 0
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits - (Bits){0};
}
#define ADD_bf16(sum, value, own) \
    sum += low(spread(value)) * low((Bits)own) + high(spread(value)) * high((Bits)own)
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

// to (rows, PANEL) = a (rows, depth) b (depth, PANEL), or += with `add`, in values of four bytes; `ahead` is read next.
#define DEFINE_KERNEL(KIND)                                                                                          \
    ALWAYS_INLINE void kernel_##KIND(const int rows, long depth, const float *a, long stride, const float *b,        \
                                     float *to, long add, const float *ahead) {                                      \
        Vector sums[ROWS][VECTORS];                                                                                  \
        for (int i = 0; i < rows; i++)                                                                               \
            for (int j = 0; j < VECTORS; j++)                                                                        \
                sums[i][j] = add ? *(const Vector *)(to + i * PANEL + j * LANES) : (Vector){0};                      \
        for (long k = 0; k < depth; k++) {                                                                           \
            Vector own[VECTORS];                                                                                     \
            if (k % 4 == 0) __builtin_prefetch(ahead + 4 * k, 0, 2);                                                 \
            for (int j = 0; j < VECTORS; j++) own[j] = *(const Vector *)(b + k * PANEL + j * LANES);                 \
            for (int i = 0; i < rows; i++) {                                                                         \
                const float value = a[i * stride + k];                                                               \
                for (int j = 0; j < VECTORS; j++) ADD_##KIND(sums[i][j], value, own[j]);                             \
            }                                                                                                        \
        }                                                                                                            \
        for (int i = 0; i < rows; i++)                                                                               \
            for (int j = 0; j < VECTORS; j++) *(Vector *)(to + i * PANEL + j * LANES) = sums[i][j];                  \
    }                                                                                                                \
    /* the same for any number of rows */                                                                            \
    static void multiply_##KIND(long rows, long depth, const float *a, long stride, const float *b, float *to,       \
                                long add) {                                                                          \
        const float *ahead = b + depth * PANEL;                                                                      \
        for (; rows >= ROWS; rows -= ROWS, a += ROWS * stride, to += ROWS * PANEL, ahead += 4 * depth)               \
            kernel_##KIND(ROWS, depth, a, stride, b, to, add, ahead);                                                \
        for (; rows > 0; rows--, a += stride, to += PANEL) kernel_##KIND(1, depth, a, stride, b, to, add, ahead);    \
    }
DEFINE_KERNEL(float)
DEFINE_KERNEL(bf16)

#endif
