/* Verifies grants offline, with Rhonabwy (Debian: librhonabwy-dev), which has EdDSA and JWKS.
 *
 *   cc -O2 -Wall -Wextra -Werror verify.c -o verify -lrhonabwy -lyder -lorcania -ljansson
 *   verify JWKS PACKAGE DEVICE ISSUER [NOW] < grants     a grant a line; a verdict a line
 *   verify --jws JWKS < signed                           the payload of what the first key of the set signed
 *
 * JWKS is the file that the gate has at /.well-known/jwks.json. NOW is for tests: seconds since 1970. */
#define _POSIX_C_SOURCE 200809L
#include <rhonabwy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

/* The longest grant. */
#define LONGEST 4096

/* Whether the last letter of a part has no bit that a decoder passes over: so nothing but the signed text is taken. */
static int is_canonical(const char *grant) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    int parts = 1;
    while (1) {
        size_t length = strcspn(grant, ".");
        if (length == 0 || strspn(grant, letters) != length) return 0;
        size_t value = (size_t)(strchr(letters, grant[length - 1]) - letters);
        if (length % 4 == 1 || (length % 4 == 2 && value % 16) || (length % 4 == 3 && value % 4)) return 0;
        if (grant[length] == '\0') return parts == 3;
        grant += length + 1;
        parts++;
    }
}

static const char *text_of(json_t *claims, const char *name) {
    const char *text = json_string_value(json_object_get(claims, name));
    return text ? text : "";
}

/* NULL and the end of a grant that holds at `now` for this app on this device; else why it does not. */
static const char *verified(const char *grant, jwks_t *keys, char **of, long long now, long long *end) {
    const char *why = "it cannot be read";
    json_t *claims = NULL;
    jwk_t *key = NULL;
    jwt_t *jwt = NULL;
    const char *kid;
    json_t *head = NULL;
    if (!is_canonical(grant) || r_jwt_init(&jwt) != RHN_OK) return why;
    /* Keys of the grant's own header are not looked at: none of the R_PARSE_HEADER flags. */
    if (r_jwt_advanced_parse(jwt, grant, R_PARSE_NONE, 0) != RHN_OK) goto done;
    why = "its algorithm is not EdDSA";
    /* Never the algorithm that the grant names: `none`, or HS256 with the public key as its secret. */
    if (r_jwt_get_type(jwt) != R_JWT_TYPE_SIGN || r_jwt_get_sign_alg(jwt) != R_JWA_ALG_EDDSA) goto done;
    why = "its header asks for what is not done here";
    head = r_jwt_get_full_header_json_t(jwt);
    if (json_object_get(head, "crit") != NULL || json_object_get(head, "b64") != NULL) goto done;
    why = "no key of this id is known";
    kid = r_jwt_get_header_str_value(jwt, "kid");
    if (kid == NULL || (key = r_jwks_get_by_kid(keys, kid)) == NULL) goto done;
    if (!(r_jwk_key_type(key, NULL, 0) & R_KEY_TYPE_EDDSA)) goto done;
    why = "its signature does not fit";
    if (r_jwt_verify_signature(jwt, key, 0) != RHN_OK) goto done;
    why = "its times are no numbers";
    claims = r_jwt_get_full_claims_json_t(jwt);
    if (!json_is_integer(json_object_get(claims, "exp")) || !json_is_integer(json_object_get(claims, "nbf"))) goto done;
    *end = json_integer_value(json_object_get(claims, "exp"));
    why = "it has ended";
    if (now >= *end) goto done;
    why = "it has not begun; is the clock right?";
    if (now < json_integer_value(json_object_get(claims, "nbf"))) goto done;
    why = "it is for another package";
    if (strcmp(text_of(claims, "sub"), of[0]) != 0) goto done;
    why = "it is for another device";
    if (strcmp(text_of(claims, "device"), of[1]) != 0) goto done;
    why = "it is of another issuer";
    if (strcmp(text_of(claims, "iss"), of[2]) != 0) goto done;
    why = NULL;
done:
    json_decref(head);
    json_decref(claims);
    r_jwk_free(key);
    r_jwt_free(jwt);
    return why;
}

/* The Ed25519 keys of a set. Others are not looked at: the library refuses the whole of a set with a kind that it does not know. */
static int import(jwks_t *keys, json_t *set) {
    size_t at;
    json_t *one;
    json_t *all = json_object_get(set, "keys");
    if (!json_is_array(all)) return 0;
    json_array_foreach(all, at, one) {
        jwk_t *key = NULL;
        if (strcmp(text_of(one, "kty"), "OKP") != 0 || strcmp(text_of(one, "crv"), "Ed25519") != 0) continue;
        if (r_jwk_init(&key) != RHN_OK) return 0;
        if (r_jwk_import_from_json_t(key, one) == RHN_OK) r_jwks_append_jwk(keys, key);
        r_jwk_free(key);
    }
    return 1;
}

static int payload(jwks_t *keys, const char *line) {
    jws_t *jws = NULL;
    jwk_t *key = r_jwks_get_at(keys, 0);
    size_t length = 0;
    int fits = r_jws_init(&jws) == RHN_OK && r_jws_advanced_compact_parse(jws, line, R_PARSE_NONE, 0) == RHN_OK &&
               r_jws_get_alg(jws) == R_JWA_ALG_EDDSA && r_jws_verify_signature(jws, key, 0) == RHN_OK;
    if (fits) {
        const unsigned char *text = r_jws_get_payload(jws, &length);
        printf("%.*s\n", (int)length, (const char *)text);
    }
    r_jwk_free(key);
    r_jws_free(jws);
    return fits;
}

int main(int argc, char **argv) {
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    json_error_t error;
    jwks_t *keys = NULL;
    int is_jws = argc == 3 && strcmp(argv[1], "--jws") == 0;
    if (!is_jws && argc < 5) return 2;
    json_t *set = json_load_file(argv[is_jws ? 2 : 1], 0, &error);
    if (r_global_init() != RHN_OK || r_jwks_init(&keys) != RHN_OK || set == NULL ||
        !import(keys, set)) {
        fprintf(stderr, "the set of keys cannot be read\n");
        return 2;
    }
    long long now = argc > 5 ? atoll(argv[5]) : (long long)time(NULL);
    while ((length = getline(&line, &room, stdin)) >= 0) {
        if (length > 0 && line[length - 1] == '\n') line[--length] = '\0';
        if (is_jws) {
            if (!payload(keys, line)) return 1;
            continue;
        }
        long long end = 0;
        const char *why = "it cannot be read";
        /* A text ends at its first NUL: what stands behind is not verified. */
        if (length <= LONGEST && strlen(line) == (size_t)length) why = verified(line, keys, argv + 2, now, &end);
        if (why) printf("refused: %s\n", why);
        else printf("valid until %lld\n", end);
    }
    free(line);
    json_decref(set);
    r_jwks_free(keys);
    r_global_close();
    return 0;
}
