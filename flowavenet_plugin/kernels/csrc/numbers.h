// Numbers, loops and norms: rows are of float or bfloat16 (uint16_t here), all arithmetic is in float. A file NAME_of.h
// holds functions for one of them: it is included once per type, with TYPE (float, uint16_t) and KIND (float, bf16)
// defined; OF, LOAD and STORE are of that KIND then.
#ifndef FLOWAVENET_NUMBERS_H
#define FLOWAVENET_NUMBERS_H
#include <math.h>
#include <stdint.h>
#include <string.h>

#define JOINED(a, b) a##_##b
#define JOIN(a, b) JOINED(a, b)
#define OF(name) JOIN(name, KIND)
#define LOAD OF(load)
#define STORE OF(store)

#define FOR_ROWS(count) \
    _Pragma("omp parallel for schedule(static) num_threads(threads)") for (long row = 0; row < (count); row++)
#define FOR_CHANNELS(count) _Pragma("omp simd") for (long c = 0; c < (count); c++)

// Of groups of at most `most` rows the size with which as many fall to each thread.
static inline long group_size(long rows, long most, long threads) {
    const long groups = threads * ((rows + threads * most - 1) / (threads * most));
    return rows ? (rows + groups - 1) / groups : 1;
}

static inline float load_bf16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// Round to the nearest, ties to even.
static inline uint16_t store_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float load_float(float x) { return x; }
static inline float store_float(float x) { return x; }

// 1 / (1 + exp(-x)); exp by a polynomial of degree 6 on [-ln 2 / 2, ln 2 / 2], within 2e-7.
static inline float sigmoid(float x) {
    float y = -x * 1.44269504f;
    y = y > 126.0f ? 126.0f : (y < -126.0f ? -126.0f : y);
    float whole = nearbyintf(y);
    float r = (y - whole) * 0.69314718f;
    float high = 1.66666667e-1f + r * (4.16666667e-2f + r * (8.3333333e-3f + r * 1.3888889e-3f));
    float p = 1.0f + r * (1.0f + r * (0.5f + r * high));
    int32_t bits = ((int32_t)whole + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return 1.0f / (1.0f + p * power);
}

// Weight norm of a row, w = g v / |v|.
static inline float squares(const float *restrict v, long size) {
    float sum = 0;
    _Pragma("omp simd reduction(+ : sum)") for (long c = 0; c < size; c++) sum += v[c] * v[c];
    return sum;
}

// The gradient of w becomes that of v; grad_g is that of g.
static inline void normalise_row(float *restrict grad, const float *restrict v, float g, float *restrict grad_g,
                                 long size) {
    float product = 0;
    _Pragma("omp simd reduction(+ : product)") for (long c = 0; c < size; c++) product += grad[c] * v[c];
    const float square = squares(v, size), norm = sqrtf(square), factor = g / norm, along = product / square;
    *grad_g = product / norm;
    FOR_CHANNELS(size) grad[c] = factor * (grad[c] - along * v[c]);
}

#endif
