// Sums around the products of Winograd's F(4, 3) and the gate, each in one pass; kernels/fused.py says what for.
// Rows are of float or bfloat16 (uint16_t here); all arithmetic is in float.
#include <math.h>
#include <stdint.h>
#include <string.h>

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
    float p = 1.0f + r * (1.0f + r * (0.5f + r * (1.66666667e-1f + r * (4.16666667e-2f + r * (8.3333333e-3f + r * 1.3888889e-3f)))));
    int32_t bits = ((int32_t)whole + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return 1.0f / (1.0f + p * power);
}

#define DEFINE(NAME, TYPE, LOAD, STORE)                                                                                \
    /* x[j] = sum over i of B'[j][i] h[row of input i]: 6 planes of tiles * dilation rows */                           \
    void inputs_##NAME(const TYPE *restrict h, TYPE *restrict x, long tiles, long dilation, long width,                \
                       long threads) {                                                                                 \
        const long plane = tiles * dilation * width, step = dilation * width;                                          \
        _Pragma("omp parallel for schedule(static) num_threads(threads)") for (long row = 0; row < tiles * dilation; row++) {               \
            const TYPE *restrict d = h + ((row / dilation) * 4 * dilation + row % dilation) * width;                   \
            TYPE *restrict out = x + row * width;                                                                      \
            _Pragma("omp simd") for (long c = 0; c < width; c++) {                                                     \
                const float d0 = LOAD(d[c]), d1 = LOAD(d[c + step]), d2 = LOAD(d[c + 2 * step]);                       \
                const float d3 = LOAD(d[c + 3 * step]), d4 = LOAD(d[c + 4 * step]), d5 = LOAD(d[c + 5 * step]);        \
                const float even = d4 - 4 * d2, odd = d3 - 4 * d1, near = d4 - d2, far = 2 * (d3 - d1);                \
                out[c] = STORE(4 * d0 - 4 * d2 + near);                                                                \
                out[c + plane] = STORE(even + odd);                                                                    \
                out[c + 2 * plane] = STORE(even - odd);                                                                \
                out[c + 3 * plane] = STORE(near + far);                                                                \
                out[c + 4 * plane] = STORE(near - far);                                                                \
                out[c + 5 * plane] = STORE(4 * d1 - 5 * d3 + d5);                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    /* gate = b - 2 a b, of a, b = sigmoid of the two halves of pre + A' y, for the first `rows` rows */               \
    void gate_##NAME(const TYPE *restrict y, const TYPE *restrict pre, TYPE *restrict gate, long rows, long tiles,     \
                     long dilation, long width, long threads) {                                                        \
        const long plane = tiles * dilation * 2 * width;                                                               \
        _Pragma("omp parallel for schedule(static) num_threads(threads)") for (long row = 0; row < tiles * dilation; row++) {               \
            const TYPE *restrict own = y + row * 2 * width;                                                            \
            const long first = (row / dilation) * 4 * dilation + row % dilation;                                       \
            float sums[4][2][CHANNELS];                                                                                \
            for (long begin = 0; begin < width; begin += CHANNELS) {                                                   \
                const long count = width - begin < CHANNELS ? width - begin : CHANNELS;                                \
                for (int half = 0; half < 2; half++) {                                                                 \
                    const TYPE *restrict v = own + half * width + begin;                                               \
                    _Pragma("omp simd") for (long c = 0; c < count; c++) {                                             \
                        const float y1 = LOAD(v[c + plane]), y2 = LOAD(v[c + 2 * plane]);                              \
                        const float y3 = LOAD(v[c + 3 * plane]), y4 = LOAD(v[c + 4 * plane]);                          \
                        const float near = y1 + y2, far = y3 + y4, near_odd = y1 - y2, far_odd = y3 - y4;              \
                        sums[0][half][c] = LOAD(v[c]) + near + far;                                                    \
                        sums[1][half][c] = near_odd + 2 * far_odd;                                                     \
                        sums[2][half][c] = near + 4 * far;                                                             \
                        sums[3][half][c] = near_odd + 8 * far_odd + LOAD(v[c + 5 * plane]);                            \
                    }                                                                                                  \
                }                                                                                                      \
                for (int i = 0; i < 4; i++) {                                                                          \
                    const long place = first + i * dilation;                                                           \
                    if (place >= rows) break;                                                                          \
                    const TYPE *restrict base = pre + place * 2 * width + begin;                                       \
                    TYPE *restrict out = gate + place * width + begin;                                                 \
                    _Pragma("omp simd") for (long c = 0; c < count; c++) {                                             \
                        const float a = sigmoid(sums[i][0][c] + LOAD(base[c]));                                        \
                        const float b = sigmoid(sums[i][1][c] + LOAD(base[c + width]));                                \
                        out[c] = STORE(b - 2 * a * b);                                                                 \
                    }                                                                                                  \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }

// out = relu(bias + W' x): x are `size` values, of rows that begin `stride` values apart, W is (size, width)
#define DEFINE_FRONT(NAME, TYPE, STORE)                                                                                \
    void front_##NAME(const float *restrict x, const float *restrict weight, const float *restrict bias,               \
                      TYPE *restrict out, long rows, long stride, long size, long width, long threads) {               \
        _Pragma("omp parallel for schedule(static) num_threads(threads)") for (long row = 0; row < rows; row++) {      \
            const float *restrict own = x + row * stride;                                                              \
            float sums[CHANNELS];                                                                                      \
            for (long begin = 0; begin < width; begin += CHANNELS) {                                                   \
                const long count = width - begin < CHANNELS ? width - begin : CHANNELS;                                \
                memcpy(sums, bias + begin, count * sizeof(float));                                                     \
                for (long k = 0; k < size; k++) {                                                                      \
                    const float value = own[k], *restrict w = weight + k * width + begin;                              \
                    _Pragma("omp simd") for (long c = 0; c < count; c++) sums[c] += value * w[c];                      \
                }                                                                                                      \
                TYPE *restrict to = out + row * width + begin;                                                         \
                _Pragma("omp simd") for (long c = 0; c < count; c++) to[c] = STORE(sums[c] > 0 ? sums[c] : 0);         \
            }                                                                                                          \
        }                                                                                                              \
    }

#define CHANNELS 256
DEFINE_FRONT(float, float, store_float)
DEFINE_FRONT(bf16, uint16_t, store_bf16)
DEFINE(float, float, load_float, store_float)
DEFINE(bf16, uint16_t, load_bf16, store_bf16)
