/* The peers' own fastest way over the sectors of a buffer, in place. Initial vectors are plain offsets: encrypting them
   as BitLocker does is work that only ours has. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef ipsec_mb
#include <intel-ipsec-mb.h>

struct ipsec {
    IMB_MGR *mgr;
    size_t key_len;
    _Alignas(64) uint8_t seal[16 * 15], open[16 * 15];
};

void *peer_ipsec_mb_new(const uint8_t *key, size_t key_len) {
    struct ipsec *of = aligned_alloc(64, (sizeof *of + 63) / 64 * 64);
    of->mgr = alloc_mb_mgr(0);
    of->key_len = key_len;
    init_mb_mgr_auto(of->mgr, NULL);
    if (key_len == 32)
        IMB_AES_KEYEXP_256(of->mgr, key, of->seal, of->open);
    else
        IMB_AES_KEYEXP_128(of->mgr, key, of->seal, of->open);
    return of;
}

void peer_ipsec_mb_free(void *peer) {
    struct ipsec *of = peer;
    free_mb_mgr(of->mgr);
    free(of);
}

/* Returns the number of sectors done. */
size_t peer_ipsec_mb_cbc(void *peer, int is_sealing, uint64_t at, size_t sector, uint8_t *data, size_t len) {
    struct ipsec *of = peer;
    IMB_JOB jobs[IMB_MAX_BURST_SIZE];
    uint64_t ivs[IMB_MAX_BURST_SIZE][2];
    size_t done = 0;
    memset(jobs, 0, sizeof jobs);
    while (len) {
        uint32_t n = 0;
        for (; n < IMB_MAX_BURST_SIZE && len; n++, at += sector, data += sector, len -= sector) {
            ivs[n][0] = at, ivs[n][1] = 0;
            jobs[n].enc_keys = of->seal, jobs[n].dec_keys = of->open;
            jobs[n].key_len_in_bytes = of->key_len;
            jobs[n].src = data, jobs[n].dst = data;
            jobs[n].cipher_start_src_offset_in_bytes = 0, jobs[n].msg_len_to_cipher_in_bytes = sector;
            jobs[n].iv = (const uint8_t *)ivs[n], jobs[n].iv_len_in_bytes = 16;
            jobs[n].cipher_mode = IMB_CIPHER_CBC;
        }
        done += IMB_SUBMIT_CIPHER_BURST_NOCHECK(of->mgr, jobs, n, IMB_CIPHER_CBC,
                                                is_sealing ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT,
                                                of->key_len == 32 ? IMB_KEY_256_BYTES : IMB_KEY_128_BYTES);
    }
    return done;
}
#endif

#ifdef openssl
#include <openssl/evp.h>

/* One context, which expands the key once. Returns whether it could. */
int peer_openssl(const char *name, const uint8_t *key, int is_sealing, uint64_t at, size_t sector, uint8_t *data, size_t len) {
    int is_xts = strstr(name, "XTS") != NULL, out, good = 1;
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, name, NULL);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    good &= cipher && EVP_CipherInit_ex(context, cipher, NULL, key, NULL, is_sealing);
    EVP_CIPHER_CTX_set_padding(context, 0);
    for (; good && len; at += sector, data += sector, len -= sector) {
        uint64_t iv[2] = {is_xts ? at / sector : at, 0};
        good &= EVP_CipherInit_ex(context, NULL, NULL, NULL, (const uint8_t *)iv, -1) &&
                EVP_CipherUpdate(context, data, &out, data, (int)sector);
    }
    EVP_CIPHER_CTX_free(context);
    EVP_CIPHER_free(cipher);
    return good;
}

int peer_openssl_md5(const uint8_t *data, size_t len, uint8_t digest[16]) {
    return EVP_Digest(data, len, digest, NULL, EVP_md5(), NULL);
}

int peer_openssl_sha256(const uint8_t *data, size_t len, uint8_t digest[32]) {
    return EVP_Digest(data, len, digest, NULL, EVP_sha256(), NULL);
}
#endif
